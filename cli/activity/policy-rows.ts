import type { EffectiveIdlePolicy, WorkspaceActivity } from '@cde/api/activity.ts';
import { scheduleText, spanText } from '@cde/api/idle-text.ts';
import { clean } from '../output.ts';
import { relative } from '../times.ts';

/** The policy that applies, with what the bounds of the installation changed. */
export function policyRows({ policy }: Pick<WorkspaceActivity, 'policy'>): [string, string][] {
  const limited = (setting: EffectiveIdlePolicy['limited'][number]) =>
    policy.limited.includes(setting) ? ' (limited by the installation)' : '';
  const { neverStop } = policy;
  // A server of an older release does not say.
  const unused = (days: number | null | undefined) =>
    days == null ? 'never' : `${days === 1 ? '1 day' : `${days} days`} without a person`;
  return [
    [
      'stop after',
      `${policy.stopAfterSeconds === null ? 'never' : `${spanText(policy.stopAfterSeconds * 1000)} without activity`}${limited('stopAfterSeconds')}`,
    ],
    [
      'max run',
      `${policy.maxRunSeconds === null ? 'no limit' : spanText(policy.maxRunSeconds * 1000)}${limited('maxRunSeconds')}`,
    ],
    ['dormant after', `${unused(policy.dormantAfterDays)}${limited('dormantAfterDays')}`],
    ['archived after', `${unused(policy.archiveAfterDays)}${limited('archiveAfterDays')}`],
    ['deleted after', `${unused(policy.deleteAfterDays)}${limited('deleteAfterDays')}`],
    ['schedule', `${clean(scheduleText(policy.schedule))}${limited('schedule')}`],
    [
      'never stop',
      `${neverStop === null ? 'off' : `until ${neverStop.until} (${relative(neverStop.until)}), by ${clean(neverStop.by)}: ${clean(neverStop.reason)}`}${limited('neverStop')}`,
    ],
    ['start on connect', policy.startOnConnect ? 'on' : 'off'],
  ];
}
