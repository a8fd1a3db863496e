import type {
  ActivityEvent,
  AwakeCause,
  CleanupCause,
  EffectiveIdlePolicy,
  IdleState,
  Lease,
  Signal,
  StopCause,
} from './activity.ts';
import { weekdays } from './idle-values.ts';

// How people read idle states, in `cde` and in the dashboard. No zod: the CLI loads this for every `cde list`.

/** What a signal is called, and how its `by` follows: a person did it, or it is of a program. */
const signalWords: Record<Signal, [name: string, before: 'by' | 'of']> = {
  'terminal-input': ['terminal input', 'by'],
  'editor-input': ['typing in an editor', 'by'],
  'port-visit': ['a visit to a shared port', 'by'],
  'process-cpu': ['CPU use', 'of'],
  'disk-throughput': ['disk activity', 'of'],
  'network-throughput': ['network activity', 'of'],
  'command-output': ['command output', 'of'],
  build: ['an image build', 'by'],
  sync: ['file sync', 'by'],
};

export function signalText(signal: Signal, by?: string | null): string {
  // A newer server may know more signals.
  const [name, before] = signalWords[signal] ?? [signal, 'by'];
  return by ? `${name} ${before} ${by}` : name;
}

const policyNames: Record<CleanupCause, string> = {
  idle: 'the idle policy',
  'max-run': 'the maximum run time',
  schedule: 'the daily schedule',
  dormant: 'the dormancy policy',
  request: 'a request',
  archive: 'the archive policy',
  delete: 'the deletion policy',
};

/** What can still postpone a stop. */
const postponedBy: Record<StopCause, string> = {
  idle: ' unless there is more activity',
  'max-run': ', whatever runs in it',
  schedule: ', or later if it is in use then',
  dormant: ' unless a person uses it',
  request: '',
};

export const policyName = (cause: CleanupCause): string => policyNames[cause] ?? cause;

/**
 * A length of time in at most two units: `40 s`, `25 min`, `3 h 10 min`, `2 days 6 h`, `30 days`. Rounded to the smallest unit
 * shown, so that a warning, a list and a page that are read within the same seconds have the same number.
 */
export function spanText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return inUnits(Math.floor(minutes / 60), 'h', minutes % 60, 'min');
  const hours = Math.round(minutes / 60);
  if (hours < 8 * 24) return inUnits(Math.floor(hours / 24), 'days', hours % 24, 'h');
  return `${Math.round(hours / 24)} days`;
}

const inUnits = (count: number, unit: string, rest: number, restUnit: string) =>
  rest === 0 ? `${count} ${unit}` : `${count} ${unit} ${rest} ${restUnit}`;

/** `just now`, `2 min ago`, `in 3 h`. */
export function whenText(iso: string, now: number): string {
  const ms = Date.parse(iso) - now;
  if (Math.abs(ms) < 5_000) return 'just now';
  return ms > 0 ? `in ${spanText(ms)}` : `${spanText(-ms)} ago`;
}

/** A moment in the reader's time zone: `17:05`, or `Sat 12 Dec 17:05` if it is on another day. */
export function clockText(iso: string, now: number): string {
  const at = new Date(iso);
  const time = at.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
  if (at.toDateString() === new Date(now).toDateString()) return time;
  const weekday = at.toLocaleDateString('en-GB', { weekday: 'short' });
  const year = at.getFullYear() === new Date(now).getFullYear() ? '' : ` ${at.getFullYear()}`;
  return `${weekday} ${dayText(iso)}${year} ${time}`;
}

function dayText(iso: string): string {
  return new Date(iso).toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
}

/** A moment and how far it is: `17:05 (in 2 h)`. */
export const momentText = (iso: string, now: number): string =>
  `${clockText(iso, now)} (${whenText(iso, now)})`;

/** When an announced deletion happens, for a column of a table: `Will be deleted in 13 days`. */
export const shortDeletionText = (deletesAt: string, now: number): string =>
  `Will be deleted ${Date.parse(deletesAt) <= now ? 'soon' : whenText(deletesAt, now)}`;

/** What an announced deletion means, and how to prevent it: `Will be deleted on Sat 12 Dec 17:05 (in 13 days) unless …` */
export function deletionText(deletesAt: string, now: number): string {
  const when = Date.parse(deletesAt) <= now ? 'soon' : `on ${momentText(deletesAt, now)}`;
  return `Will be deleted ${when} unless a person starts or keeps it, or chooses never-stop. Its home is retained for some time after that.`;
}

/** Who asked for a lease. */
export function leaseOwner(by: string): string {
  if (by === 'schedule') return 'its schedule';
  return by === 'workspace' ? 'a program in it' : by;
}

/** What a keep-awake achieves, after the name of the workspace: `stays awake until 17:05 (in 3 h)`. */
export function keptAwakeText({ expiresAt, runEndsAt }: Lease, now: number): string {
  return runEndsAt
    ? `stays awake only until ${momentText(runEndsAt, now)}, when its maximum run time ends: a keep-awake does not extend that`
    : `stays awake until ${momentText(expiresAt, now)}`;
}

/** `terminal input by ada (2 min ago)` */
export function causeText(cause: AwakeCause, now: number): string {
  switch (cause.kind) {
    case 'signal':
      return `${signalText(cause.signal, cause.by)} (${whenText(cause.at, now)})`;
    case 'lease':
      return `keep-awake by ${leaseOwner(cause.by)} (${Date.parse(cause.at) > now ? 'expires' : 'expired'} ${whenText(cause.at, now)})`;
    case 'never-stop':
      return `never-stop by ${cause.by}: ${cause.reason}, until ${momentText(cause.at, now)}`;
    case 'start':
      return `its start (${whenText(cause.at, now)})`;
  }
}

/** The last cause of a workspace that has stopped, for texts that are kept: `terminal input by ada, 2 h before`. */
export function pastCauseText(cause: AwakeCause, stoppedAt: number): string {
  const before = `${spanText(stoppedAt - Date.parse(cause.at))} before`;
  switch (cause.kind) {
    case 'signal':
      return `${signalText(cause.signal, cause.by)}, ${before}`;
    case 'lease':
      return `keep-awake by ${leaseOwner(cause.by)}, which expired ${before}`;
    case 'never-stop':
      return `never-stop by ${cause.by}, which expired ${before}`;
    case 'start':
      return `its start, ${before}`;
  }
}

/** When and why it stops, as one sentence. */
export function stopText(state: IdleState, now: number): string {
  if (state.held || state.waitsForReport) return `It is ${stopValue(state, now)}.`;
  return state.stopsAt === null || state.cause === null
    ? 'No policy stops it.'
    : `It stops ${stopValue(state, now)}.`;
}

/** The same for a field that is called "stops". */
export function stopValue(state: IdleState, now: number): string {
  if (state.held)
    return 'due, and waits because many workspaces are: it stops some minutes later, or once an admin allows it';
  if (state.waitsForReport)
    return 'due, but its agent has not reported since: missing data does not count as idleness';
  if (state.stopsAt === null || state.cause === null) return 'never: no policy stops it';
  const isDue = Date.parse(state.stopsAt) <= now;
  const when = isDue ? 'now' : `at ${momentText(state.stopsAt, now)}`;
  return `${when} by ${policyName(state.cause)}${postponedBy[state.cause] ?? ''}`;
}

/** When the schedule of a stopped workspace starts it, for a field that is called "starts". */
export const startValue = (startsAt: string, now: number): string =>
  `at ${momentText(startsAt, now)} by its daily schedule`;

/** The same in a few words, for a column of a table. */
export function shortStopText(state: IdleState, now: number): string {
  if (state.held) return 'held back';
  if (state.waitsForReport) return 'waits for its agent';
  const { awakeBecause: because, stopsAt } = state;
  // A maximum run time can end it earlier.
  const untilExpiry = because.kind === 'never-stop' && (stopsAt === null || stopsAt >= because.at);
  if (untilExpiry) return `never until ${dayText(because.at)}`;
  if (stopsAt === null) return 'never';
  return Date.parse(stopsAt) <= now ? 'now' : `in ${spanText(Date.parse(stopsAt) - now)}`;
}

/** What the settings of a policy are called, as labels and in sentences. */
export const policyLabels: Record<EffectiveIdlePolicy['limited'][number] | 'startOnConnect', string> = {
  stopAfterSeconds: 'stop after',
  maxRunSeconds: 'maximum run time',
  dormantAfterDays: 'dormant after',
  archiveAfterDays: 'archived after',
  deleteAfterDays: 'deleted after',
  schedule: 'schedule',
  neverStop: 'never stop',
  startOnConnect: 'start on connect',
};
/** A setting that the bounds of the installation have changed, in words. */
export const limitedText = (setting: EffectiveIdlePolicy['limited'][number]): string =>
  policyLabels[setting] ?? setting;

/** `1 h without activity`, or `never`. */
export const stopAfterText = (seconds: number | null): string =>
  seconds === null ? 'never' : `${spanText(seconds * 1000)} without activity`;

/** `a day`, `30 days`. */
export const dayCountText = (days: number): string => (days === 1 ? 'a day' : `${days} days`);

/** `a day without a person`, or `never`. Undefined: a server of an earlier release does not say. */
export function unusedAfterText(days: number | null | undefined): string {
  if (days === null || days === undefined) return 'never';
  return `${dayCountText(days)} without a person`;
}

/** Until when, by whom and why, of a workspace that must not stop. */
export const neverStopText = (
  { until, by, reason }: NonNullable<EffectiveIdlePolicy['neverStop']>,
  now: number,
): string => `until ${momentText(until, now)}, by ${by}: ${reason}`;

/** What an event of the history is called: the signal, or what happened. */
export function eventName({ kind, signal }: Pick<ActivityEvent, 'kind' | 'signal'>): string {
  return signal !== null && kind === 'signal' ? signal : (eventNames[kind] ?? kind);
}
const eventNames: Partial<Record<ActivityEvent['kind'], string>> = {
  'lease-granted': 'keep-awake',
  'lease-ended': 'keep-awake-ended',
};

export function scheduleText(schedule: EffectiveIdlePolicy['schedule']): string {
  if (!schedule) return 'none';
  const parts = [
    schedule.start && `start ${schedule.start}`,
    schedule.stop && `stop ${schedule.stop}`,
    daysText(schedule.days),
  ];
  return `${parts.filter(Boolean).join(', ')} (${schedule.timeZone})`;
}

/** `mon-fri`, `mon, wed`: runs of three days and more as a range. */
export function daysText(days: readonly string[]): string {
  const chosen = weekdays.map((day) => days.includes(day));
  const parts: string[] = [];
  for (let from = 0; from < weekdays.length; from++) {
    if (!chosen[from]) continue;
    let to = from;
    while (chosen[to + 1]) to++;
    parts.push(
      to - from >= 2 ? `${weekdays[from]}-${weekdays[to]}` : weekdays.slice(from, to + 1).join(', '),
    );
    from = to;
  }
  return parts.join(', ');
}

/** What the bounds make of the default time to stop after, which they hold for as well; null if it lies within them. */
export function boundOnDefault(policy: {
  defaultStopAfterSeconds: number | null;
  minStopAfterSeconds: number | null;
  maxStopAfterSeconds: number | null;
}): { setting: 'minStopAfterSeconds' | 'maxStopAfterSeconds'; text: string } | null {
  const { defaultStopAfterSeconds: seconds, minStopAfterSeconds: min, maxStopAfterSeconds: max } = policy;
  if (seconds === null) return null;
  if (max !== null && seconds > max)
    return { setting: 'maxStopAfterSeconds', text: `limited to ${spanText(max * 1000)}` };
  if (min !== null && seconds < min)
    return { setting: 'minStopAfterSeconds', text: `raised to ${spanText(min * 1000)}` };
  return null;
}
