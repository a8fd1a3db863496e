import type { EffectiveIdlePolicy, WorkspaceActivity } from '@cde/api/activity.ts';
import {
  neverStopText,
  policyLabels,
  scheduleText,
  spanText,
  stopAfterText,
  unusedAfterText,
} from '@cde/api/idle-text.ts';
import { clean } from '../output/output.ts';

/** The policy that applies, with what the bounds of the installation changed. */
export function policyRows({ policy }: Pick<WorkspaceActivity, 'policy'>): [string, string][] {
  const { maxRunSeconds, neverStop } = policy;
  const row = (setting: EffectiveIdlePolicy['limited'][number], value: string): [string, string] => [
    policyLabels[setting],
    `${value}${policy.limited.includes(setting) ? ' (limited by the installation)' : ''}`,
  ];
  return [
    row('stopAfterSeconds', stopAfterText(policy.stopAfterSeconds)),
    row('maxRunSeconds', maxRunSeconds === null ? 'no limit' : spanText(maxRunSeconds * 1000)),
    row('dormantAfterDays', unusedAfterText(policy.dormantAfterDays)),
    row('archiveAfterDays', unusedAfterText(policy.archiveAfterDays)),
    row('deleteAfterDays', unusedAfterText(policy.deleteAfterDays)),
    row('schedule', clean(scheduleText(policy.schedule))),
    row('neverStop', neverStop === null ? 'off' : clean(neverStopText(neverStop, Date.now()))),
    [policyLabels.startOnConnect, policy.startOnConnect ? 'on' : 'off'],
  ];
}
