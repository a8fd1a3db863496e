import { dayMs } from '@cde/api/durations.ts';
import ICAL from 'ical.js';
import type { Holidays } from './schedule.ts';

/** The file cannot be used as it is. The message says why, for the admin who uploads it. */
export class HolidaysError extends Error {
  override readonly name = 'HolidaysError';
}

const maxEvents = 5_000;
/** A file can be a few lines and describe a day every second until the end of time. */
const maxSteps = 50_000;

/**
 * The days of an iCalendar file's events between two years, both included. Counts events that last whole days: those without a time
 * of day, and those from midnight to midnight, as some programs write them. Throws HolidaysError.
 */
export function readHolidays(text: string, years: { from: number; to: number }): Holidays {
  const days = new Set<string>();
  if (text.trim() === '') return days;
  const window = { from: Date.UTC(years.from, 0, 1), to: Date.UTC(years.to + 1, 0, 1) };
  const budget = { steps: maxSteps };
  const events = parse(text)
    .flatMap((calendar) => calendar.getAllSubcomponents('vevent'))
    .filter((event) => event.getFirstPropertyValue('status') !== 'CANCELLED');
  if (events.length > maxEvents)
    throw new HolidaysError(`The file has ${events.length} events; at most ${maxEvents} are possible.`);
  const changed = new Map<string, Set<number>>();
  for (const event of events) {
    const original = event.getFirstPropertyValue('recurrence-id');
    if (!(original instanceof ICAL.Time)) continue;
    const uid = String(event.getFirstPropertyValue('uid'));
    changed.set(uid, (changed.get(uid) ?? new Set()).add(dayOf(original)));
  }
  for (const event of events) {
    try {
      addDays(event, changed, window, budget, days);
    } catch (error) {
      if (error instanceof HolidaysError) throw error;
      const title = String(event.getFirstPropertyValue('summary') ?? 'without a title').slice(0, 80);
      throw new HolidaysError(`The event "${title}" cannot be read: ${(error as Error).message}`);
    }
  }
  return days;
}

function parse(text: string): ICAL.Component[] {
  let parsed: unknown;
  try {
    parsed = ICAL.parse(text);
  } catch (error) {
    throw new HolidaysError(`The file cannot be read: ${(error as Error).message.slice(0, 200)}`);
  }
  // One calendar, or a list of several.
  const isOne = Array.isArray(parsed) && typeof parsed[0] === 'string';
  const calendars = (isOne ? [parsed] : (parsed as unknown[])).map((each) => new ICAL.Component(each as []));
  if (calendars.some(({ name }) => name !== 'vcalendar'))
    throw new HolidaysError('The file is not an iCalendar file: it must begin with BEGIN:VCALENDAR.');
  return calendars;
}

interface Budget {
  steps: number;
}

function spend(budget: Budget, steps: number): void {
  budget.steps -= steps;
  if (!(budget.steps >= 0))
    throw new HolidaysError(
      'The events repeat too often, or by a rule that never comes true. Keep those that are holidays, once a year each.',
    );
}

const dayOf = ({ year, month, day }: ICAL.Time) => Date.UTC(year, month - 1, day);
const isMidnight = (time: ICAL.Time) =>
  time.isDate || (time.hour === 0 && time.minute === 0 && time.second === 0);

function addDays(
  event: ICAL.Component,
  changed: ReadonlyMap<string, ReadonlySet<number>>,
  window: { from: number; to: number },
  budget: Budget,
  days: Set<string>,
): void {
  const start = event.getFirstPropertyValue('dtstart');
  if (!(start instanceof ICAL.Time)) throw new Error('it has no start (DTSTART)');
  const length = wholeDays(event, start);
  if (length === null) return;
  const isChange = event.hasProperty('recurrence-id');
  const replaced = isChange ? undefined : changed.get(String(event.getFirstPropertyValue('uid')));
  const excluded = new Set(timesOf(event, 'exdate').map(dayOf));
  const add = (day: number) => {
    spend(budget, 1);
    if (excluded.has(day) || replaced?.has(day)) return;
    for (let each = Math.max(day, window.from); each < Math.min(day + length, window.to); each += dayMs) {
      spend(budget, 1);
      days.add(new Date(each).toISOString().slice(0, 10));
    }
  };
  add(dayOf(start));
  for (const date of timesOf(event, 'rdate')) add(dayOf(date));
  if (isChange) return;
  for (const property of event.getAllProperties('rrule')) {
    const rule = property.getFirstValue();
    if (!(rule instanceof ICAL.Recur)) throw new Error('it repeats by a rule (RRULE) that is not understood');
    const iterator = new BoundedIterator(rule, start, budget);
    for (let next = iterator.next(); next && dayOf(next) < window.to; next = iterator.next())
      add(dayOf(next));
  }
}

function timesOf(event: ICAL.Component, name: string): ICAL.Time[] {
  return event
    .getAllProperties(name)
    .flatMap((property) => property.getValues() as unknown[])
    .map((value) => (value instanceof ICAL.Period ? value.start : value))
    .filter((value) => value instanceof ICAL.Time);
}

/** For how many ms of whole days an event lasts; null if it is not about whole days. */
function wholeDays(event: ICAL.Component, start: ICAL.Time): number | null {
  if (!isMidnight(start)) return null;
  const end = event.getFirstPropertyValue('dtend');
  const duration = event.getFirstPropertyValue('duration');
  let length = start.isDate ? dayMs : 0;
  if (end instanceof ICAL.Time) {
    if (!isMidnight(end)) return null;
    // Some programs write the same day as the end of an event that lasts one.
    length = Math.max(dayOf(end) - dayOf(start), length);
  } else if (duration instanceof ICAL.Duration) {
    length = Math.floor((duration.toSeconds() * 1000) / dayMs) * dayMs;
  }
  return length >= dayMs ? length : null;
}

/**
 * The library looks for the next occurrence until it finds one, and for a 30 February it looks forever. All its loops pass through
 * these methods.
 */
class BoundedIterator extends ICAL.RecurIterator {
  declare budget: Budget;

  constructor(rule: ICAL.Recur, dtstart: ICAL.Time, budget: Budget) {
    super({ rule, dtstart, budget } as never);
  }

  override fromData(options: { rule: ICAL.Recur; dtstart: ICAL.Time; budget?: Budget }): void {
    this.budget = options.budget!;
    super.fromData(options);
  }

  override check_contracting_rules(): boolean {
    spend(this.budget, 1);
    return super.check_contracting_rules();
  }

  override increment_monthday(days: number): void {
    spend(this.budget, days);
    super.increment_monthday(days);
  }

  override increment_month(): void {
    spend(this.budget, 1);
    super.increment_month();
  }

  override expand_year_days(year: number): number {
    spend(this.budget, 5);
    return super.expand_year_days(year);
  }
}
