import { describe, expect, test } from 'vitest';
import { decideUnused, dormantAtOf, type Unused, unusedOf } from './unused.ts';

const day = 24 * 3600_000;
const noticeMs = 14 * day;
const unused: Unused = {
  personAt: 0,
  keptUntil: 0,
  dormantAfterDays: 30,
  archiveAfterDays: 60,
  deleteAfterDays: 180,
};
const fresh = { archivedAt: null, deletesAt: null, noticeMs };

test('days count from the last use by a person, the creation, or the end of what keeps it', () => {
  expect(dormantAtOf(unused)).toBe(30 * day);
  expect(dormantAtOf({ ...unused, keptUntil: 50 * day })).toBe(50 * day);
  expect(dormantAtOf({ ...unused, dormantAfterDays: null })).toBeNull();
  const createdAt = Date.UTC(2026, 0, 1);
  const workspaceId = `${createdAt.toString(16).padStart(12, '0')}0000700080000000000000`;
  const policy = { dormantAfterDays: 30, archiveAfterDays: null, deleteAfterDays: null, neverStop: null };
  expect(unusedOf({ workspaceId, personAt: null, leases: [] }, policy)).toMatchObject({
    personAt: createdAt,
    keptUntil: 0,
  });
  const until = createdAt + 5 * day;
  const kept = {
    ...policy,
    neverStop: { until: new Date(until).toISOString(), by: 'ada', reason: 'a demo' },
  };
  const leases = [{ id: 'l', expiresAt: until + 1, by: 'ada' }];
  expect(unusedOf({ workspaceId, personAt: until, leases: [] }, kept)).toMatchObject({
    personAt: until,
    keptUntil: until,
  });
  expect(unusedOf({ workspaceId, personAt: null, leases }, kept).keptUntil).toBe(until + 1);
});

test('it is archived once', () => {
  expect(decideUnused(unused, fresh, 60 * day - 1).archives).toBe(false);
  expect(decideUnused(unused, fresh, 60 * day).archives).toBe(true);
  expect(decideUnused(unused, { ...fresh, archivedAt: 1 }, 61 * day).archives).toBe(false);
  expect(decideUnused({ ...unused, archiveAfterDays: null }, fresh, 999 * day).archives).toBe(false);
});

describe('a deletion', () => {
  const of = (now: number, deletesAt: number | null = null, more: Partial<Unused> = {}) =>
    decideUnused({ ...unused, ...more }, { ...fresh, deletesAt }, now).deletion;

  test('is announced before it is due', () => {
    expect(of(166 * day - 1)).toEqual({ kind: 'none' });
    expect(of(166 * day)).toEqual({ kind: 'announce', at: 180 * day });
    expect(of(999 * day, null, { deleteAfterDays: null })).toEqual({ kind: 'none' });
  });

  test('has its full notice, however late it is announced', () => {
    expect(of(400 * day)).toEqual({ kind: 'announce', at: 414 * day });
  });

  test('is not announced again at once after a person keeps it, however long the notice', () => {
    const kept = { personAt: 100 * day, dormantAfterDays: 2, deleteAfterDays: 7 };
    expect(of(102 * day - 1, null, kept)).toEqual({ kind: 'none' });
    expect(of(102 * day, null, kept)).toEqual({ kind: 'announce', at: 116 * day });
  });

  test('happens no earlier than announced, whatever becomes of the policy', () => {
    expect(of(414 * day - 1, 414 * day)).toEqual({ kind: 'wait', at: 414 * day });
    expect(of(200 * day, 414 * day, { deleteAfterDays: 1 })).toEqual({ kind: 'wait', at: 414 * day });
    expect(of(414 * day, 414 * day)).toEqual({ kind: 'due', at: 414 * day });
  });

  test.each<[string, Partial<Unused>]>([
    ['a use by a person', { personAt: 10 * day }],
    ['never-stop or a lease', { keptUntil: 181 * day }],
    ['a policy of more days', { deleteAfterDays: 190 }],
    ['a policy without deletion', { deleteAfterDays: null }],
  ])('is cancelled by %s', (_, more) => {
    expect(of(170 * day, 180 * day, more)).toEqual({ kind: 'cancel' });
    expect(of(180 * day, 180 * day, more)).toEqual({ kind: 'cancel' });
  });
});
