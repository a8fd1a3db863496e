import { weekdays } from '@cde/api/idle-values.ts';
import fc from 'fast-check';
import { DateTime } from 'luxon';
import { describe, expect, test } from 'vitest';
import { type Holidays, latestStop, makeAfterHoursCalendar, nextStart, nextStop } from './schedule.ts';

const noHolidays: Holidays = new Set();
const schedule = (over: object = {}) => ({
  start: '08:30',
  stop: '19:00',
  days: [...weekdays].slice(0, 5),
  timeZone: 'Europe/Vienna',
  ...over,
});
const ms = (iso: string) => Date.parse(iso);
const iso = (at: number | null) => at && new Date(at).toISOString().replace(':00.000Z', 'Z');

describe('starts', () => {
  test.each([
    ['a working day before it', '2026-03-02T06:00Z', '2026-03-02T07:30Z'],
    ['the very moment', '2026-03-02T07:30Z', '2026-03-03T07:30Z'],
    ['the weekend', '2026-03-06T20:00Z', '2026-03-09T07:30Z'],
    ['the weekend on which the clocks change', '2026-03-27T20:00Z', '2026-03-30T06:30Z'],
  ])('%s', (_, after, next) => {
    expect(iso(nextStart(schedule(), noHolidays, ms(after)))).toBe(next);
  });

  test('holidays have none', () => {
    const holidays = new Set(['2026-12-24', '2026-12-25', '2026-12-28']);
    expect(iso(nextStart(schedule(), holidays, ms('2026-12-23T20:00Z')))).toBe('2026-12-29T07:30Z');
  });

  test('a schedule without one, and an unknown time zone, have none', () => {
    expect(nextStart(schedule({ start: undefined }), noHolidays, 0)).toBeNull();
    expect(nextStart(schedule({ timeZone: 'Mars/Olympus' }), noHolidays, 0)).toBeNull();
  });

  test('days on which nobody ever works have none', () => {
    const all = new Set(
      Array.from({ length: 500 }, (_, day) =>
        new Date(Date.UTC(2026, 0, 1 + day)).toISOString().slice(0, 10),
      ),
    );
    expect(nextStart(schedule(), all, ms('2026-01-01T00:00Z'))).toBeNull();
  });
});

describe('clock changes', () => {
  const nightly = (timeZone: string) => schedule({ start: '02:30', days: [...weekdays], timeZone });
  test.each([
    ['02:30 does not exist', 'Europe/Vienna', '2026-03-28T12:00Z', '2026-03-29T01:30Z'],
    ['02:30 exists twice: the first', 'Europe/Vienna', '2026-10-24T12:00Z', '2026-10-25T00:30Z'],
    ['it is not repeated an hour later', 'Europe/Vienna', '2026-10-25T00:30Z', '2026-10-26T01:30Z'],
    ['the other hemisphere', 'Australia/Sydney', '2026-10-03T12:00Z', '2026-10-03T16:30Z'],
    ['half an hour of offset', 'Asia/Kolkata', '2026-01-01T00:00Z', '2026-01-01T21:00Z'],
    ['three quarters of an hour', 'Asia/Kathmandu', '2026-01-01T00:00Z', '2026-01-01T20:45Z'],
    ['clocks that change by half an hour', 'Australia/Lord_Howe', '2026-10-03T12:00Z', '2026-10-03T15:30Z'],
  ])('%s', (_, zone, after, next) => {
    expect(iso(nextStart(nightly(zone), noHolidays, ms(after)))).toBe(next);
  });

  test('the result does not depend on the season in which it is computed', () => {
    const before = DateTime.now;
    const results = ['2026-01-15', '2026-07-15'].map((today) => {
      DateTime.now = () => before().set({ year: 2026, month: Number(today.slice(5, 7)), day: 15 });
      return iso(nextStart(nightly('Europe/Vienna'), noHolidays, ms('2026-10-24T12:00Z')));
    });
    DateTime.now = before;
    expect(new Set(results).size).toBe(1);
  });

  test('a day that a zone skipped has no start', () => {
    const samoa = schedule({ start: '09:00', days: [...weekdays], timeZone: 'Pacific/Apia' });
    const thursday = nextStart(samoa, noHolidays, ms('2011-12-29T12:00Z'))!;
    const next = nextStart(samoa, noHolidays, thursday)!;
    expect(
      [thursday, next].map((at) => DateTime.fromMillis(at, { zone: samoa.timeZone }).toISODate()),
    ).toEqual(['2011-12-29', '2011-12-31']);
  });
});

describe('stops', () => {
  test('are on every day, also at weekends', () => {
    expect(iso(nextStop(schedule(), ms('2026-03-07T12:00Z')))).toBe('2026-03-07T18:00Z');
    expect(iso(latestStop(schedule(), ms('2026-03-08T12:00Z')))).toBe('2026-03-07T18:00Z');
    expect(iso(latestStop(schedule(), ms('2026-03-07T18:00Z')))).toBe('2026-03-07T18:00Z');
  });

  test('after-hours last until the next start, or 12 hours if there is none on the next day', () => {
    const calendar = makeAfterHoursCalendar(schedule({ stop: '21:00' }), noHolidays)!;
    const hours = (at: string) => {
      const { from, until } = calendar.at(ms(at))!;
      return [iso(from), iso(until)];
    };
    expect(hours('2026-03-05T12:00Z')).toEqual(['2026-03-05T20:00Z', '2026-03-06T07:30Z']);
    expect(hours('2026-03-06T05:00Z')).toEqual(['2026-03-05T20:00Z', '2026-03-06T07:30Z']);
    expect(hours('2026-03-06T07:30Z')).toEqual(['2026-03-06T20:00Z', '2026-03-07T08:00Z']);
    expect(hours('2026-03-07T09:00Z')).toEqual(['2026-03-07T20:00Z', '2026-03-08T08:00Z']);
    expect(makeAfterHoursCalendar(schedule({ stop: undefined }), noHolidays)).toBeNull();
  });

  test('a night shift starts in the evening and stops in the morning', () => {
    const night = schedule({ start: '20:00', stop: '04:00' });
    expect(iso(nextStart(night, noHolidays, ms('2026-03-02T12:00Z')))).toBe('2026-03-02T19:00Z');
    expect(iso(nextStop(night, ms('2026-03-02T19:00Z')))).toBe('2026-03-03T03:00Z');
  });
});

const timeOfDay = fc
  .tuple(fc.nat({ max: 23 }), fc.nat({ max: 59 }))
  .map(([hour, minute]) => `${String(hour).padStart(2, '0')}:${String(minute).padStart(2, '0')}`);

test('in any zone and year each working day has one start at its local time, and a stop follows', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...Intl.supportedValuesOf('timeZone')),
      fc.integer({ min: 2015, max: 2040 }),
      fc.nat({ max: 340 }),
      timeOfDay,
      timeOfDay,
      fc.subarray([...weekdays], { minLength: 1 }),
      fc.uniqueArray(fc.nat({ max: 25 }), { maxLength: 6 }),
      (timeZone, year, firstDay, start, stop, days, daysOff) => {
        fc.pre(start !== stop);
        const zoned = { zone: timeZone };
        const begin = DateTime.fromObject({ year, month: 1, day: 1, hour: 12 }, zoned).plus({
          days: firstDay,
        });
        const dates = Array.from({ length: 20 }, (_, index) => begin.plus({ days: index + 1 }));
        const holidays = new Set(
          daysOff.flatMap((index) => (dates[index] ? [dates[index].toISODate()!] : [])),
        );
        const each = { start, stop, days, timeZone };
        const expected = dates
          .filter((date) => days.includes(weekdays[date.weekday - 1]!) && !holidays.has(date.toISODate()!))
          .map((date) => date.toISODate());
        const found: string[] = [];
        let at = begin.endOf('day').toMillis();
        for (;;) {
          const next = nextStart(each, holidays, at);
          if (next === null || next > dates.at(-1)!.endOf('day').toMillis()) break;
          expect(next).toBeGreaterThan(at);
          const local = DateTime.fromMillis(next, zoned);
          found.push(local.toISODate()!);
          // Unless the clocks skip it.
          const skipped = local.minus({ hours: 3 }).offset !== local.plus({ hours: 3 }).offset;
          if (!skipped) expect(local.toFormat('HH:mm')).toBe(start);
          const end = nextStop(each, next)!;
          expect(end).toBeGreaterThan(next);
          expect(end - next).toBeLessThan(26 * 3600_000);
          expect(latestStop(each, end)).toBe(end);
          expect(latestStop(each, end - 1)).toBeLessThanOrEqual(next);
          at = next;
        }
        expect(found).toEqual(expected);
      },
    ),
    { numRuns: 100 },
  );
});

test('the calendar of after-hours agrees with the plain functions at every moment', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...Intl.supportedValuesOf('timeZone')),
      timeOfDay,
      fc.option(timeOfDay, { nil: undefined }),
      fc.array(fc.integer({ min: Date.UTC(2024, 0, 1), max: Date.UTC(2030, 0, 1) }), { maxLength: 5 }),
      (timeZone, stop, start, moments) => {
        fc.pre(start !== stop);
        const each = schedule({ timeZone, stop, start });
        const calendar = makeAfterHoursCalendar(each, noHolidays)!;
        for (const moment of moments) {
          const hours = calendar.at(moment)!;
          expect(hours.until).toBeGreaterThan(moment);
          expect(hours.until).toBeGreaterThan(hours.from);
          const latest = latestStop(each, moment)!;
          const isWithin =
            moment <
            Math.min(nextStart(each, noHolidays, latest) ?? Number.POSITIVE_INFINITY, latest + 12 * 3600_000);
          expect(hours.from).toBe(isWithin ? latest : nextStop(each, moment));
        }
      },
    ),
    { numRuns: 60 },
  );
});
