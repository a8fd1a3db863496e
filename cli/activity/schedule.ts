import type { DailySchedule, IdleChoices, WorkspaceActivity } from '@cde/api/activity.ts';
import { parseDuration } from '@cde/api/durations.ts';
import { limitedText } from '@cde/api/idle-text.ts';
import { type Weekday, weekdays, workdays } from '@cde/api/idle-values.ts';
import type { Context } from '../command/context.ts';
import { fields, note, type Result, result } from '../command/result.ts';
import { getWorkspaceActivity, setIdleChoices } from '../connection/endpoints.ts';
import { usage } from '../failure/failure.ts';
import { pathRef } from '../workspaces/reference.ts';
import { policyRows } from './policy-rows.ts';
import { stateRows } from './state-rows.ts';

interface Input {
  workspace: string;
  stopAfter: string | undefined;
  dailyStart: string | undefined;
  dailyStop: string | undefined;
  days: string | undefined;
  timeZone: string | undefined;
  /** False with --no-schedule. */
  schedule: boolean;
  neverStop: string | undefined;
  reason: string | undefined;
  noNeverStop: boolean;
  startOnConnect: string | undefined;
}

export async function schedule(context: Context, input: Input): Promise<Result> {
  checkCombinations(input);
  const params = { workspace: pathRef(input.workspace) };
  const changed = changesOf(input);
  const client = await context.client();
  const before = await client.call(getWorkspaceActivity, { params });
  const choices = changed(before.choices);
  const after =
    choices === before.choices ? before : await client.call(setIdleChoices, { params, body: choices });
  return result(after, () => [
    fields([...policyRows(after), ...stateRows(after)]),
    after.policy.limited.length > 0 && note(limitedNote(after)),
  ]);
}

function limitedNote({ policy }: WorkspaceActivity): string {
  return `The installation limits: ${policy.limited.map(limitedText).join(', ')}.`;
}

function checkCombinations(input: Input): void {
  const daily = [input.dailyStart, input.dailyStop, input.days, input.timeZone];
  if (!input.schedule && daily.some((value) => value !== undefined))
    throw usage('--no-schedule excludes --daily-start, --daily-stop, --days and --time-zone.');
  if (input.neverStop !== undefined && input.noNeverStop)
    throw usage('--never-stop and --no-never-stop exclude each other.');
  if (input.neverStop !== undefined && !input.reason?.trim())
    throw usage('--never-stop needs a reason.', 'Add --reason "…". Everyone who sees the workspace sees it.');
  if (input.reason !== undefined && input.neverStop === undefined)
    throw usage('--reason is for --never-stop.');
}

/** Reads the options. Returns a function that applies them to the choices; without options it returns the same object. */
function changesOf(input: Input): (before: IdleChoices) => IdleChoices {
  const stopAfter = input.stopAfter === undefined ? undefined : readStopAfter(input.stopAfter);
  const neverStopSeconds =
    input.neverStop === undefined ? undefined : readDuration('--never-stop', input.neverStop);
  const days = input.days === undefined ? undefined : readDays(input.days);
  const hasSchedule = [input.dailyStart, input.dailyStop, input.days, input.timeZone].some(
    (value) => value !== undefined,
  );
  return (before) => {
    const { stopAfterSeconds: _, ...withoutStopAfter } = before;
    let after = before;
    if (stopAfter === 'default') after = withoutStopAfter;
    else if (stopAfter !== undefined) after = { ...after, stopAfterSeconds: stopAfter };
    if (!input.schedule) after = { ...after, schedule: null };
    if (hasSchedule) after = { ...after, schedule: scheduleOf(input, days, before.schedule ?? undefined) };
    if (input.noNeverStop) after = { ...after, neverStop: null };
    if (neverStopSeconds !== undefined)
      after = {
        ...after,
        neverStop: {
          until: new Date(Date.now() + neverStopSeconds * 1000).toISOString(),
          reason: input.reason!.trim(),
        },
      };
    if (input.startOnConnect !== undefined)
      after = { ...after, startOnConnect: input.startOnConnect === 'on' };
    return after;
  };
}

function scheduleOf(
  input: Input,
  days: Weekday[] | undefined,
  before: DailySchedule | undefined,
): DailySchedule {
  const start = input.dailyStart ?? before?.start;
  const stop = input.dailyStop ?? before?.stop;
  if (start === undefined && stop === undefined)
    throw usage('A schedule needs --daily-start or --daily-stop.', 'For example: --daily-stop 19:00');
  return {
    ...(start !== undefined && { start }),
    ...(stop !== undefined && { stop }),
    days: days ?? before?.days ?? workdays,
    timeZone: input.timeZone ?? before?.timeZone ?? Intl.DateTimeFormat().resolvedOptions().timeZone,
  };
}

function readDuration(flag: string, text: string): number {
  const seconds = parseDuration(text);
  if (seconds === null)
    throw usage(`${flag} takes a length of time, not ${JSON.stringify(text)}.`, 'For example 30m, 3h or 7d.');
  return seconds;
}

function readStopAfter(text: string): number | null | 'default' {
  if (text === 'default') return text;
  return text === 'never' ? null : readDuration('--stop-after', text);
}

const dayNames: Record<Weekday, string> = {
  mon: 'monday',
  tue: 'tuesday',
  wed: 'wednesday',
  thu: 'thursday',
  fri: 'friday',
  sat: 'saturday',
  sun: 'sunday',
};

/** `mon-fri`, `mon,Wednesday`, `fri-mon`. */
function readDays(text: string): Weekday[] {
  const wrong = () =>
    usage(
      `--days takes days of the week, not ${JSON.stringify(text)}.`,
      'For example mon-fri or mon,wed,sat.',
    );
  const indexOf = (word: string) => {
    const name = word.trim().toLowerCase();
    const at = weekdays.findIndex((day) => name === day || name === dayNames[day]);
    if (at < 0) throw wrong();
    return at;
  };
  const chosen = new Set<number>();
  for (const part of text.split(',')) {
    const [from = '', to = from, ...more] = part.split('-');
    if (more.length > 0) throw wrong();
    const last = indexOf(to);
    for (let at = indexOf(from); ; at = (at + 1) % weekdays.length) {
      chosen.add(at);
      if (at === last) break;
    }
  }
  return weekdays.filter((_, at) => chosen.has(at));
}
