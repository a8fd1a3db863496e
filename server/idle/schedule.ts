import type { DailySchedule } from '@cde/api/activity.ts';
import { dayMs } from '@cde/api/durations.ts';
import { weekdays } from '@cde/api/idle-values.ts';
import { DateTime, IANAZone } from 'luxon';

/** Dates without work, as `YYYY-MM-DD`. They have no time zone: a holiday is the local day wherever the workspace is scheduled. */
export type Holidays = ReadonlySet<string>;

type Starts = Pick<DailySchedule, 'start' | 'days' | 'timeZone'>;
type Stops = Pick<DailySchedule, 'stop' | 'timeZone'>;

/** A calendar of nothing but holidays has no next start. */
const maxDaysAhead = 400;

/** The first start after a moment: on a working day that is no holiday. Null if the schedule has none. */
export function nextStart(schedule: Starts, holidays: Holidays, after: number): number | null {
  if (schedule.start === undefined) return null;
  const first = localDay(schedule.timeZone, after);
  if (first === null) return null;
  for (let day = first; day <= first + maxDaysAhead * dayMs; day += dayMs) {
    if (!isWorkingDay(schedule, holidays, day)) continue;
    const at = momentOf(schedule.timeZone, day, schedule.start);
    if (at !== null && at > after) return at;
  }
  return null;
}

/** The first stop after a moment. Stops are on every day: a workspace that was started on a Sunday is forgotten as easily. */
export function nextStop(schedule: Stops, after: number): number | null {
  if (schedule.stop === undefined) return null;
  const first = localDay(schedule.timeZone, after);
  if (first === null) return null;
  // Some zones have skipped a whole day.
  for (let day = first; day <= first + 3 * dayMs; day += dayMs) {
    const at = momentOf(schedule.timeZone, day, schedule.stop);
    if (at !== null && at > after) return at;
  }
  return null;
}

/** The last stop at or before a moment. */
export function latestStop(schedule: Stops, atOrBefore: number): number | null {
  if (schedule.stop === undefined) return null;
  const last = localDay(schedule.timeZone, atOrBefore);
  if (last === null) return null;
  for (let day = last; day >= last - 3 * dayMs; day -= dayMs) {
    const at = momentOf(schedule.timeZone, day, schedule.stop);
    if (at !== null && at <= atOrBefore) return at;
  }
  return null;
}

/** Whether this server knows a time zone. The names are validated when they are set, but a later ICU may have dropped one. */
export const isKnownZone = (timeZone: string): boolean => IANAZone.create(timeZone).isValid;

/** The local calendar day of a moment, as the UTC midnight of that date. Null if the zone is unknown. */
function localDay(timeZone: string, at: number): number | null {
  if (!isKnownZone(timeZone)) return null;
  const { year, month, day } = DateTime.fromMillis(at, { zone: timeZone });
  return Date.UTC(year, month - 1, day);
}

function isWorkingDay({ days }: Starts, holidays: Holidays, day: number): boolean {
  const date = new Date(day);
  const weekday = weekdays[(date.getUTCDay() + 6) % 7]!;
  return days.includes(weekday) && !holidays.has(date.toISOString().slice(0, 10));
}

/**
 * The moment of a time of day. If the clocks skip it, it is as much later as they go forward (02:30 becomes 03:30), and if it
 * occurs twice, it is the first, as in RFC 5545. Null if the zone skipped the whole day.
 */
function momentOf(timeZone: string, day: number, timeOfDay: string): number | null {
  const date = new Date(day);
  const [hour, minute] = timeOfDay.split(':').map(Number);
  const local = DateTime.fromObject(
    { year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate(), hour, minute },
    { zone: timeZone },
  );
  // Of two possible moments Luxon returns the one with today's offset, so the result would depend on the season.
  const [first] = local.getPossibleOffsets().sort((a, b) => a.toMillis() - b.toMillis());
  return first!.day === date.getUTCDate() ? first!.toMillis() : null;
}

/** The time from a daily stop until the next daily start, during which a workspace stops after a short idle period. */
interface AfterHours {
  from: number;
  until: number;
}

/** Without a start on the next day, because of a weekend for example, idle periods are as usual again after so long. */
const maxAfterHoursMs = 12 * 3600_000;

/** Answers which after-hours a moment is in, or which are next. */
export interface AfterHoursCalendar {
  /** The first after-hours that end after a moment. */
  at(moment: number): AfterHours | null;
}

/** The sweep asks for the same days 10,000 times, and time zones are slow. Enough for a lease of any length. */
const maxCachedDays = 64;

/** Null if the schedule has no daily stop. */
export function makeAfterHoursCalendar(
  schedule: DailySchedule,
  holidays: Holidays,
): AfterHoursCalendar | null {
  if (schedule.stop === undefined || !isKnownZone(schedule.timeZone)) return null;
  /** By UTC day: those that end after its beginning, up to the first that begins after its end. */
  const cache = new Map<number, AfterHours[]>();

  function after(stop: number): AfterHours {
    const start = nextStart(schedule, holidays, stop);
    return { from: stop, until: Math.min(start ?? Number.POSITIVE_INFINITY, stop + maxAfterHoursMs) };
  }
  function ofDay(day: number): AfterHours[] {
    const found: AfterHours[] = [];
    const from = day * dayMs;
    let stop = latestStop(schedule, from) ?? nextStop(schedule, from);
    while (stop !== null) {
      const hours = after(stop);
      if (hours.until > from) found.push(hours);
      if (hours.from >= from + dayMs) break;
      stop = nextStop(schedule, stop);
    }
    return found;
  }
  return {
    at(moment) {
      const day = Math.floor(moment / dayMs);
      let known = cache.get(day);
      if (!known) {
        known = ofDay(day);
        if (cache.size >= maxCachedDays) cache.clear();
        cache.set(day, known);
      }
      return known.find(({ until }) => until > moment) ?? null;
    },
  };
}
