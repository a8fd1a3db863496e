import type { DailySchedule, EffectiveIdlePolicy, IdleChoices } from '@cde/api/activity.ts';
import type { CleanupPolicy } from '@cde/api/cleanup.ts';
import { dayMs } from '@cde/api/durations.ts';
import type { TemplateFile } from '@cde/api/template-file.ts';
import { parseDuration } from '../providers/quantity.ts';
import { HolidaysError, readHolidays } from './holidays.ts';
import type { IdlePolicy } from './policy.ts';
import { type AfterHoursCalendar, type Holidays, isKnownZone, makeAfterHoursCalendar } from './schedule.ts';

type IdleSection = TemplateFile['idle'];
type Limited = EffectiveIdlePolicy['limited'][number];
type Bounds = Omit<CleanupPolicy, 'webhook' | 'holidays' | 'brakePercent' | 'deleteNoticeDays'>;

/** What the owner of a workspace chose, and who chose it. */
export interface Chosen {
  choices: IdleChoices;
  by: string | null;
}

/** What the template says, the owner chose and the bounds allow. A choice wins over the template, a bound over both. */
export function effectivePolicy(
  section: IdleSection,
  chosen: Chosen,
  bounds: Bounds,
  now: number,
): EffectiveIdlePolicy {
  const { choices, by } = chosen;
  const limited: Limited[] = [];
  /** Names a setting that was asked for and is not possible. */
  const limit = <T>(setting: Limited, asked: T | undefined, given: T): T => {
    if (asked !== undefined && asked !== given) limited.push(setting);
    return given;
  };

  const ownStopAfter =
    choices.stopAfterSeconds !== undefined ? choices.stopAfterSeconds : stopAfterOf(section);
  const stopAfter = ownStopAfter === undefined ? bounds.defaultStopAfterSeconds : ownStopAfter;
  const maxRun = secondsOf(section?.maxRun);
  const days = (setting: 'dormantAfterDays' | 'archiveAfterDays' | 'deleteAfterDays') =>
    limit(setting, section?.[setting], within(section?.[setting] ?? null, { max: bounds[setting] }));
  const archiveAfterDays = days('archiveAfterDays');
  const deleteAfterDays = days('deleteAfterDays');
  const { neverStop } = choices;
  const schedule = choices.schedule !== undefined ? choices.schedule : section?.schedule;
  const until = neverStop && boundedUntil(neverStop.until, bounds.maxNeverStopDays, now);
  return {
    stopAfterSeconds: limit(
      'stopAfterSeconds',
      stopAfter,
      within(stopAfter, { min: bounds.minStopAfterSeconds, max: bounds.maxStopAfterSeconds }),
    ),
    maxRunSeconds: limit('maxRunSeconds', maxRun, within(maxRun ?? null, { max: bounds.maxRunSeconds })),
    dormantAfterDays: earliest(days('dormantAfterDays'), archiveAfterDays, deleteAfterDays),
    archiveAfterDays,
    deleteAfterDays,
    // Stored before the zone was renamed or removed.
    schedule: limit('schedule', schedule, schedule && isKnownZone(schedule.timeZone) ? schedule : null),
    neverStop:
      neverStop && limit('neverStop', neverStop.until, until ?? null) !== null
        ? { until: until!, by: by ?? '', reason: neverStop.reason }
        : null,
    startOnConnect: choices.startOnConnect ?? section?.startOnConnect ?? false,
    limited,
  };
}

/** Until when never-stop is possible; null if it is not available. Call it too when a choice is stored: the days count from then. */
export function boundedUntil(until: string, maxDays: number, now: number): string | null {
  if (maxDays === 0) return null;
  const latest = now + maxDays * dayMs;
  return Date.parse(until) <= latest ? until : new Date(latest).toISOString();
}

/**
 * Null is longer than any bound. If an admin sets a maximum below the minimum, the maximum wins: it costs less.
 */
function within(
  value: number | null,
  { min = null, max }: { min?: number | null; max: number | null },
): number | null {
  const raised = value !== null && min !== null ? Math.max(value, min) : value;
  if (max === null) return raised;
  return raised === null ? max : Math.min(raised, max);
}

/** What is archived or deleted is dormant by then. */
function earliest(...days: (number | null)[]): number | null {
  const given = days.filter((count) => count !== null);
  return given.length === 0 ? null : Math.min(...given);
}

const secondsOf = (duration: string | undefined): number | undefined =>
  duration === undefined ? undefined : Math.ceil((parseDuration(duration) ?? 0) / 1000);

const stopAfterOf = (section: IdleSection): number | null | undefined =>
  section?.stopAfter === 'never' ? null : secondsOf(section?.stopAfter);

/** The file was read when it was set. Should it be unreadable now, starts on a holiday are better than no cleanup. */
function readable(text: string, year: number): Holidays {
  try {
    return readHolidays(text, { from: year - 1, to: year + 2 });
  } catch (error) {
    if (error instanceof HolidaysError) return new Set();
    throw error;
  }
}

/** An installation has a handful of schedules: those of its templates, and some that people chose. */
const maxCachedCalendars = 2_000;

/** Turns settings into what `decide` takes. Calendars and holidays are computed once, since sweeps ask for all workspaces. */
export function makePolicyResolver({ now }: { now: () => Date }) {
  let known: { text: string; year: number; holidays: Holidays } | null = null;
  const calendars = new Map<string, AfterHoursCalendar | null>();

  /** The holidays of the bounds, for the years around now. */
  function holidays({ holidays: text }: Pick<CleanupPolicy, 'holidays'>): Holidays {
    const year = now().getUTCFullYear();
    if (known?.text === text && known.year === year) return known.holidays;
    known = { text, year, holidays: readable(text, year) };
    calendars.clear();
    return known.holidays;
  }

  function calendarOf(schedule: DailySchedule | null, days: Holidays): AfterHoursCalendar | null {
    if (schedule === null) return null;
    const key = JSON.stringify(schedule);
    let calendar = calendars.get(key);
    if (calendar === undefined) {
      calendar = makeAfterHoursCalendar(schedule, days);
      if (calendars.size >= maxCachedCalendars) calendars.clear();
      calendars.set(key, calendar);
    }
    return calendar;
  }

  return {
    holidays,
    resolve(
      section: IdleSection,
      chosen: Chosen,
      bounds: CleanupPolicy,
    ): { effective: EffectiveIdlePolicy; policy: IdlePolicy } {
      const effective = effectivePolicy(section, chosen, bounds, now().getTime());
      const { neverStop } = effective;
      return {
        effective,
        policy: {
          stopAfterIdleMs: toMs(effective.stopAfterSeconds),
          maxRunMs: toMs(effective.maxRunSeconds),
          neverStop: neverStop && { ...neverStop, until: Date.parse(neverStop.until) },
          schedule: calendarOf(effective.schedule, holidays(bounds)),
        },
      };
    },
  };
}

const toMs = (seconds: number | null) => (seconds === null ? null : seconds * 1000);
