import type { ActivityEvent } from '@cde/api/activity.ts';
import type { CleanupReport } from '@cde/api/cleanup.ts';
import { v7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { activityEvents } from '../database/idle-schema.ts';
import { templates, templateVersions, users, workspaces } from '../database/schema.ts';
import { makeTestDatabase, type TestDatabase } from '../testing.ts';
import { readCleanupReport, sumUpDays } from './report.ts';

const now = new Date('2026-03-10T12:00:00Z');
const day = 24 * 3600_000;

let database: TestDatabase;
beforeAll(async () => {
  database = await makeTestDatabase();
  const people = await Promise.all(['ada', 'grace'].map(addUser));
  const [go, node] = await Promise.all(['go', 'node'].map(addTemplate));
  // Each line: the kind, when, and what stopped it.
  await addWorkspace(people[0]!, go!, 'nights', 'running', null, [
    ['started', '2026-03-08T08:00Z'],
    ['stopped', '2026-03-08T20:00Z', 'idle'],
    ['started', '2026-03-09T08:00Z'],
    ['stopped', '2026-03-09T18:00Z', 'schedule'],
    ['started', '2026-03-10T06:00Z'],
  ]);
  // Stopped by a person: nothing is saved.
  await addWorkspace(people[0]!, node!, 'by-hand', 'stopped', null, [
    ['started', '2026-03-10T00:00Z'],
    ['stopped', '2026-03-10T06:00Z', 'request'],
  ]);
  await addWorkspace(people[1]!, node!, 'no-cause', 'stopped', null, [['stopped', '2026-03-10T06:00Z']]);
  // Stopped before the report begins, still stopped; and one that was forgotten long ago.
  await addWorkspace(people[1]!, go!, 'long', 'stopped', 'east', [['stopped', '2026-02-20T00:00Z', 'idle']]);
  await addWorkspace(people[1]!, go!, 'forgotten', 'stopped', 'east', [
    ['stopped', '2026-01-01T00:00Z', 'idle'],
  ]);
  // Running since long before.
  await addWorkspace(people[1]!, go!, 'always', 'running', 'west', []);
  await addWorkspace(people[1]!, go!, 'deleted', 'deleted', 'west', [
    ['stopped', '2026-03-10T00:00Z', 'max-run'],
  ]);
});
afterAll(() => database.drop());

async function addUser(username: string): Promise<string> {
  const id = v7();
  await database.db.insert(users).values({ id, username, role: 'member' });
  return id;
}

async function addTemplate(name: string): Promise<{ id: string; versionId: string }> {
  const [id, versionId] = [v7(), v7()];
  await database.db.insert(templates).values({ id, name });
  await database.db.insert(templateVersions).values({
    id: versionId,
    templateId: id,
    number: 1,
    files: {},
    filesHash: Buffer.alloc(1),
    content: {} as never,
  });
  return { id, versionId };
}

async function addWorkspace(
  ownerId: string,
  template: { id: string; versionId: string },
  name: string,
  status: 'running' | 'stopped' | 'deleted',
  cluster: string | null,
  events: [kind: ActivityEvent['kind'], at: string, cause?: ActivityEvent['cause']][],
): Promise<void> {
  const id = v7();
  await database.db.insert(workspaces).values({
    id,
    ownerId,
    name,
    templateId: template.id,
    templateVersionId: template.versionId,
    provider: cluster ? 'kubernetes' : 'local',
    cluster,
    nodePool: cluster && 'dev',
    desired: status,
    status,
    createdAt: new Date('2025-12-01T00:00Z'),
    updatedAt: new Date('2026-03-10T04:00Z'),
  });
  for (const [kind, at, cause] of events)
    await database.db.insert(activityEvents).values({
      id: v7(),
      workspaceId: id,
      at: new Date(at),
      kind,
      cause: cause ?? null,
      // It ran elsewhere before its last run.
      nodePool: cluster && at < '2026-03-01' ? 'old' : null,
      text: kind,
    });
}

const report = (by: 'template' | 'owner' | 'cluster' | 'node-pool' | 'day', days = 3) =>
  readCleanupReport(database, { days, by }, now);
const totals = ({ rows }: CleanupReport) =>
  rows.reduce(
    (sum, row) => ({
      running: sum.running + row.runningHours,
      stopped: sum.stopped + row.stoppedHours,
      stops: sum.stops + row.stops,
    }),
    { running: 0, stopped: 0, stops: 0 },
  );

describe.each(['from the events', 'once the days are summed up'])('hours saved, %s', (how) => {
  beforeAll(async () => {
    if (how === 'from the events') return;
    // Twice, because each day counts once; and a first time two days before.
    for (const at of [new Date(now.getTime() - 2 * day), now, now]) await sumUpDays(database, at);
  });

  test('by template: what policies stopped until the next start or now', async () => {
    expect(await report('template')).toEqual({
      from: '2026-03-08T00:00:00.000Z',
      to: now.toISOString(),
      rows: [
        // nights 12 + 12, long 60, deleted 4; nights ran 12 + 10 + 6, always 60, deleted until it was stopped 48.
        { key: 'go', runningHours: 136, stoppedHours: 88, stops: 3 },
        // by-hand ran 6; no-cause until it was stopped 54.
        { key: 'node', runningHours: 60, stoppedHours: 0, stops: 0 },
      ],
    });
  });

  test('by owner and by cluster, or provider if there is no cluster', async () => {
    expect((await report('owner')).rows).toEqual([
      { key: 'grace', runningHours: 162, stoppedHours: 64, stops: 1 },
      { key: 'ada', runningHours: 34, stoppedHours: 24, stops: 2 },
    ]);
    expect((await report('cluster')).rows.map(({ key, stoppedHours }) => [key, stoppedHours])).toEqual([
      ['east', 60],
      ['local', 24],
      ['west', 4],
    ]);
  });

  test('by node pool, of the node that each run was on', async () => {
    expect((await report('node-pool')).rows.map(({ key, stoppedHours }) => [key, stoppedHours])).toEqual([
      ['east/old', 60],
      ['local', 24],
      ['west/unknown', 4],
      ['west/dev', 0],
    ]);
  });

  test('by day: hours are those of the day, and a stop is on the day it happened', async () => {
    expect((await report('day')).rows).toEqual([
      { key: '2026-03-08', runningHours: 84, stoppedHours: 28, stops: 1 },
      { key: '2026-03-09', runningHours: 82, stoppedHours: 38, stops: 1 },
      { key: '2026-03-10', runningHours: 30, stoppedHours: 22, stops: 1 },
    ]);
  });

  test('every view has the same totals', async () => {
    const [first, ...others] = await Promise.all(
      (['template', 'owner', 'cluster', 'node-pool', 'day'] as const).map(async (by) =>
        totals(await report(by)),
      ),
    );
    for (const other of others) expect(other).toEqual(first);
  });

  test('a stop counts for 30 days', async () => {
    const { rows } = await report('cluster', 100);
    const east = rows.find(({ key }) => key === 'east')!;
    expect(east.stoppedHours).toBe(30 * 24 + ((now.getTime() - Date.parse('2026-02-20T00:00Z')) / day) * 24);
  });
});
