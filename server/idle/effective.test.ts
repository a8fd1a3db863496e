import type { DailySchedule, IdleChoices } from '@cde/api/activity.ts';
import type { CleanupPolicy } from '@cde/api/cleanup.ts';
import type { TemplateFile } from '@cde/api/template-file.ts';
import { describe, expect, test } from 'vitest';
import { boundedUntil, effectivePolicy, makePolicyResolver } from './effective.ts';

const now = Date.UTC(2026, 2, 2, 12);
const hour = 3600;
const bounds: CleanupPolicy = {
  defaultStopAfterSeconds: hour,
  minStopAfterSeconds: 300,
  maxStopAfterSeconds: null,
  maxRunSeconds: null,
  maxLeaseSeconds: 24 * hour,
  maxNeverStopDays: 30,
  dormantAfterDays: null,
  archiveAfterDays: null,
  deleteAfterDays: null,
  deleteNoticeDays: 14,
  brakePercent: 20,
  holidays: '',
  webhook: null,
};
const daily: DailySchedule = { start: '08:00', stop: '19:00', days: ['mon'], timeZone: 'Europe/Vienna' };

interface Case {
  template?: TemplateFile['idle'];
  choices?: IdleChoices;
  bounds?: Partial<CleanupPolicy>;
}
const of = (each: Case) =>
  effectivePolicy(
    each.template,
    { choices: each.choices ?? {}, by: 'ada' },
    { ...bounds, ...each.bounds },
    now,
  );

test.each<[string, Case, object]>([
  ['nothing is said: the default', {}, { stopAfterSeconds: hour, maxRunSeconds: null, limited: [] }],
  ['a default of never', { bounds: { defaultStopAfterSeconds: null } }, { stopAfterSeconds: null }],
  [
    'a default above the maximum',
    { bounds: { defaultStopAfterSeconds: 8 * hour, maxStopAfterSeconds: 4 * hour } },
    { stopAfterSeconds: 4 * hour, limited: ['stopAfterSeconds'] },
  ],
  [
    'a default below the minimum',
    { bounds: { defaultStopAfterSeconds: 60, minStopAfterSeconds: 300 } },
    { stopAfterSeconds: 300, limited: ['stopAfterSeconds'] },
  ],
  ['the template', { template: { stopAfter: '2h' } }, { stopAfterSeconds: 2 * hour }],
  ['a template that never stops', { template: { stopAfter: 'never' } }, { stopAfterSeconds: null }],
  [
    'a choice wins over the template',
    { template: { stopAfter: '2h' }, choices: { stopAfterSeconds: 3 * hour } },
    { stopAfterSeconds: 3 * hour, limited: [] },
  ],
  [
    'the choice of never',
    { template: { stopAfter: '2h' }, choices: { stopAfterSeconds: null } },
    { stopAfterSeconds: null, limited: [] },
  ],
  [
    'never is longer than the maximum',
    { choices: { stopAfterSeconds: null }, bounds: { maxStopAfterSeconds: 4 * hour } },
    { stopAfterSeconds: 4 * hour, limited: ['stopAfterSeconds'] },
  ],
  [
    "the template's never is limited too",
    { template: { stopAfter: 'never' }, bounds: { maxStopAfterSeconds: 4 * hour } },
    { stopAfterSeconds: 4 * hour, limited: ['stopAfterSeconds'] },
  ],
  [
    'less than the minimum',
    { choices: { stopAfterSeconds: 60 } },
    { stopAfterSeconds: 300, limited: ['stopAfterSeconds'] },
  ],
  [
    'maximum below minimum: the maximum',
    { bounds: { minStopAfterSeconds: 900, maxStopAfterSeconds: 600 } },
    { stopAfterSeconds: 600 },
  ],
  [
    'exactly a bound is not limited',
    { choices: { stopAfterSeconds: 300 } },
    { stopAfterSeconds: 300, limited: [] },
  ],
  ['the maximum run time', { template: { maxRun: '12h' } }, { maxRunSeconds: 12 * hour, limited: [] }],
  [
    'a tighter bound of it',
    { template: { maxRun: '12h' }, bounds: { maxRunSeconds: 8 * hour } },
    { maxRunSeconds: 8 * hour, limited: ['maxRunSeconds'] },
  ],
  [
    'a bound where the template says nothing',
    { bounds: { maxRunSeconds: 8 * hour, dormantAfterDays: 60 } },
    { maxRunSeconds: 8 * hour, dormantAfterDays: 60, limited: [] },
  ],
  [
    'a wider bound',
    {
      template: { maxRun: '2h', dormantAfterDays: 10 },
      bounds: { maxRunSeconds: 8 * hour, dormantAfterDays: 60 },
    },
    { maxRunSeconds: 2 * hour, dormantAfterDays: 10, limited: [] },
  ],
  [
    'dormancy later than allowed',
    { template: { dormantAfterDays: 90 }, bounds: { dormantAfterDays: 60 } },
    { dormantAfterDays: 60, limited: ['dormantAfterDays'] },
  ],
  [
    'what is archived or deleted is dormant by then',
    { template: { archiveAfterDays: 60 }, bounds: { deleteAfterDays: 50, dormantAfterDays: 90 } },
    { dormantAfterDays: 50, archiveAfterDays: 60, deleteAfterDays: 50, limited: [] },
  ],
  [
    'a bound of the deletion',
    { template: { deleteAfterDays: 400 }, bounds: { deleteAfterDays: 180 } },
    { deleteAfterDays: 180, dormantAfterDays: 180, archiveAfterDays: null, limited: ['deleteAfterDays'] },
  ],
  ["the template's schedule", { template: { schedule: daily } }, { schedule: daily, limited: [] }],
  [
    'the choice of none',
    { template: { schedule: daily }, choices: { schedule: null } },
    { schedule: null, limited: [] },
  ],
  [
    'a time zone that does not exist any longer',
    { choices: { schedule: { ...daily, timeZone: 'Europe/Atlantis' } } },
    { schedule: null, limited: ['schedule'] },
  ],
  [
    'never-stop within the bound',
    { choices: { neverStop: { until: '2026-03-09T12:00:00Z', reason: 'demo' } } },
    { neverStop: { until: '2026-03-09T12:00:00Z', by: 'ada', reason: 'demo' }, limited: [] },
  ],
  [
    'never-stop beyond it',
    { choices: { neverStop: { until: '2026-12-31T12:00:00Z', reason: 'demo' } } },
    { neverStop: { until: '2026-04-01T12:00:00.000Z', by: 'ada', reason: 'demo' }, limited: ['neverStop'] },
  ],
  [
    'never-stop that is not available',
    {
      choices: { neverStop: { until: '2026-03-09T12:00:00Z', reason: 'demo' } },
      bounds: { maxNeverStopDays: 0 },
    },
    { neverStop: null, limited: ['neverStop'] },
  ],
  ['no never-stop', { choices: { neverStop: null } }, { neverStop: null, limited: [] }],
  ['start on connect, by the template', { template: { startOnConnect: true } }, { startOnConnect: true }],
  [
    'start on connect, by choice',
    { template: { startOnConnect: true }, choices: { startOnConnect: false } },
    { startOnConnect: false },
  ],
  [
    'several at once',
    {
      template: { stopAfter: 'never', maxRun: '48h' },
      bounds: { maxStopAfterSeconds: hour, maxRunSeconds: hour },
    },
    { limited: ['stopAfterSeconds', 'maxRunSeconds'] },
  ],
])('%s', (_, each, expected) => {
  expect(of(each)).toMatchObject(expected);
});

test('never-stop can be bounded when it is chosen', () => {
  expect(boundedUntil('2026-03-09T12:00:00Z', 30, now)).toBe('2026-03-09T12:00:00Z');
  expect(boundedUntil('2027-03-09T12:00:00Z', 1, now)).toBe('2026-03-03T12:00:00.000Z');
  expect(boundedUntil('2026-03-09T12:00:00Z', 0, now)).toBeNull();
});

describe('the resolver', () => {
  const holidays = [
    'BEGIN:VCALENDAR',
    'BEGIN:VEVENT',
    'DTSTART;VALUE=DATE:20260303',
    'END:VEVENT',
    'END:VCALENDAR',
  ].join('\n');

  test('gives the policy in ms, with a calendar that knows the holidays', () => {
    const { resolve } = makePolicyResolver({ now: () => new Date(now) });
    const neverStop = { until: '2026-03-09T12:00:00Z', reason: 'demo' };
    const schedule = { ...daily, start: '01:00', days: ['mon' as const, 'tue' as const] };
    const resolved = (file: string) =>
      resolve(
        { stopAfter: '2h', maxRun: '12h', schedule },
        { choices: { neverStop }, by: 'ada' },
        { ...bounds, holidays: file },
      ).policy;
    expect(resolved('')).toMatchObject({
      stopAfterIdleMs: 7_200_000,
      maxRunMs: 43_200_000,
      neverStop: { until: Date.UTC(2026, 2, 9, 12), by: 'ada', reason: 'demo' },
    });
    const until = (file: string) => resolved(file).schedule?.at(now)?.until;
    expect(until('')).toBe(Date.UTC(2026, 2, 3, 0));
    // Without a start on the next day after-hours end after 12 hours.
    expect(until(holidays)).toBe(Date.UTC(2026, 2, 3, 6));
  });

  test('the same schedule has the same calendar', () => {
    const { resolve } = makePolicyResolver({ now: () => new Date(now) });
    const calendar = () =>
      resolve({ schedule: { ...daily } }, { choices: {}, by: null }, bounds).policy.schedule;
    expect(calendar()).toBe(calendar());
  });
});
