import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HolidaysError, readHolidays } from './holidays.ts';

const years = { from: 2026, to: 2028 };
const calendar = (...events: string[][]) =>
  [
    'BEGIN:VCALENDAR',
    'VERSION:2.0',
    'PRODID:-//example//holidays//EN',
    ...events.flatMap((lines, index) => [
      'BEGIN:VEVENT',
      ...(lines.some((line) => line.startsWith('UID')) ? [] : [`UID:${index}@example.com`]),
      'DTSTAMP:20260101T000000Z',
      ...lines,
      'END:VEVENT',
    ]),
    'END:VCALENDAR',
  ].join('\r\n');
const days = (...events: string[][]) => [...readHolidays(calendar(...events), years)].sort();

describe('holidays', () => {
  test('a day, and several days whose end is not one of them', () => {
    expect(days(['DTSTART;VALUE=DATE:20261224', 'SUMMARY:Christmas Eve'])).toEqual(['2026-12-24']);
    expect(days(['DTSTART;VALUE=DATE:20261224', 'DTEND;VALUE=DATE:20261227'])).toEqual([
      '2026-12-24',
      '2026-12-25',
      '2026-12-26',
    ]);
    expect(days(['DTSTART;VALUE=DATE:20261231', 'DURATION:P2D'])).toEqual(['2026-12-31', '2027-01-01']);
    expect(days(['DTSTART;VALUE=DATE:20261224', 'DTEND;VALUE=DATE:20261224'])).toEqual(['2026-12-24']);
  });

  test('one that repeats every year, from before the years', () => {
    expect(days(['DTSTART;VALUE=DATE:20150501', 'RRULE:FREQ=YEARLY'])).toEqual([
      '2026-05-01',
      '2027-05-01',
      '2028-05-01',
    ]);
    // The fourth Thursday of November.
    expect(days(['DTSTART;VALUE=DATE:20201126', 'RRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH'])).toEqual([
      '2026-11-26',
      '2027-11-25',
      '2028-11-23',
    ]);
    expect(days(['DTSTART;VALUE=DATE:20200229', 'RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29'])).toEqual([
      '2028-02-29',
    ]);
  });

  test('exceptions, additions, moved and cancelled ones', () => {
    expect(
      days([
        'DTSTART;VALUE=DATE:20260501',
        'RRULE:FREQ=YEARLY;COUNT=3',
        'EXDATE;VALUE=DATE:20270501',
        'RDATE;VALUE=DATE:20270503',
      ]),
    ).toEqual(['2026-05-01', '2027-05-03', '2028-05-01']);
    expect(
      days(
        ['UID:a', 'DTSTART;VALUE=DATE:20260501', 'RRULE:FREQ=YEARLY;COUNT=2'],
        ['UID:a', 'RECURRENCE-ID;VALUE=DATE:20270501', 'DTSTART;VALUE=DATE:20270504'],
      ),
    ).toEqual(['2026-05-01', '2027-05-04']);
    expect(days(['DTSTART;VALUE=DATE:20260501', 'STATUS:CANCELLED'])).toEqual([]);
  });

  test('from midnight to midnight is a day, and a meeting is not', () => {
    expect(days(['DTSTART:20260501T000000', 'DTEND:20260502T000000'])).toEqual(['2026-05-01']);
    expect(
      days(['DTSTART;TZID=Europe/Vienna:20260501T000000', 'DTEND;TZID=Europe/Vienna:20260502T000000']),
    ).toEqual(['2026-05-01']);
    expect(days(['DTSTART:20260501T100000Z', 'DTEND:20260501T110000Z'])).toEqual([]);
    expect(days(['DTSTART:20260501T000000', 'DURATION:PT1H'])).toEqual([]);
  });

  test('an empty file has none, and several calendars are read together', () => {
    expect(readHolidays('', years).size).toBe(0);
    const two = `${calendar(['DTSTART;VALUE=DATE:20260501'])}\r\n${calendar(['DTSTART;VALUE=DATE:20260601'])}`;
    expect([...readHolidays(two, years)]).toEqual(['2026-05-01', '2026-06-01']);
  });
});

describe('files that are rejected', () => {
  test.each([
    ['another format', 'hello', /cannot be read/],
    ['a web page', '<!doctype html>\n<html lang="en">:</html>', /./],
    ['a contact', 'BEGIN:VCARD\r\nVERSION:4.0\r\nFN:Ada\r\nEND:VCARD', /must begin with BEGIN:VCALENDAR/],
    ['an event without a start', calendar(['SUMMARY:Nothing']), /"Nothing" cannot be read: it has no start/],
    ['a rule that is none', calendar(['DTSTART;VALUE=DATE:20260501', 'RRULE:FREQ=OFTEN']), /./],
    ['too many events', calendar(...Array(5001).fill(['DTSTART;VALUE=DATE:20260501'])), /5001 events/],
    ['a file that is cut off', calendar(['DTSTART;VALUE=DATE:20260501']).slice(0, -20), /./],
  ])('%s', (_, text, message) => {
    expect(() => readHolidays(text, years)).toThrow(HolidaysError);
    expect(() => readHolidays(text, years)).toThrow(message);
  });

  test.each([
    'FREQ=SECONDLY',
    'FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30',
    'FREQ=MONTHLY;INTERVAL=24;BYDAY=5MO',
    'FREQ=DAILY;INTERVAL=999999999999999',
    'FREQ=WEEKLY;INTERVAL=999999999999;BYDAY=MO',
    'FREQ=HOURLY;BYMONTH=4;BYMONTHDAY=31',
  ])('a rule that would never end: %s', (rule) => {
    const text = calendar(['DTSTART;VALUE=DATE:20250201', `RRULE:${rule}`]);
    expect(() => readHolidays(text, years)).toThrow(HolidaysError);
  });

  test('whatever the rule, it ends: with days, or with an error', () => {
    const numbers = (min: number, max: number) =>
      fc.uniqueArray(fc.integer({ min, max }), { minLength: 1, maxLength: 4 }).map(String);
    const part = (name: string, values: fc.Arbitrary<string>) =>
      fc.option(
        values.map((value) => `;${name}=${value}`),
        { nil: '' },
      );
    const rule = fc.tuple(
      fc
        .constantFrom('SECONDLY', 'MINUTELY', 'HOURLY', 'DAILY', 'WEEKLY', 'MONTHLY', 'YEARLY')
        .map((freq) => `FREQ=${freq}`),
      part('INTERVAL', fc.oneof(fc.integer({ min: 1, max: 60 }), fc.maxSafeNat()).map(String)),
      part('BYMONTH', numbers(1, 12)),
      part('BYMONTHDAY', numbers(-31, 31)),
      part(
        'BYDAY',
        fc.uniqueArray(fc.constantFrom('MO', '5MO', '-5SU', '6TU', '53WE'), { minLength: 1 }).map(String),
      ),
      part('BYWEEKNO', numbers(-53, 53)),
      part('BYYEARDAY', numbers(-366, 366)),
      part('BYSETPOS', numbers(-10, 10)),
      part('BYHOUR', numbers(0, 23)),
      part('COUNT', fc.integer({ min: 1, max: 1e9 }).map(String)),
    );
    fc.assert(
      fc.property(rule, fc.constantFrom('00010101', '20240229', '20250201', '20261231'), (parts, start) => {
        const text = calendar([`DTSTART;VALUE=DATE:${start}`, `RRULE:${parts.join('')}`]);
        try {
          for (const day of readHolidays(text, years)) expect(day).toMatch(/^202[678]-\d\d-\d\d$/);
        } catch (error) {
          expect(error).toBeInstanceOf(HolidaysError);
        }
      }),
      { numRuns: 150 },
    );
  });
});
