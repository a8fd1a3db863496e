import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  getCleanupPolicy,
  getCleanupReport,
  previewCleanup,
  releaseBrake,
  type StoredCleanupPolicy,
  setCleanupPolicy,
} from '@cde/api/cleanup.ts';
import { expect, test } from 'vitest';
import { Refusal, startFakeServer } from '../testing/cli.ts';

const { home, server, env } = await startFakeServer();
const moment = '2026-01-01T00:00:00.000Z';
const storedPolicy: StoredCleanupPolicy = {
  defaultStopAfterSeconds: 7200,
  minStopAfterSeconds: null,
  maxStopAfterSeconds: null,
  maxRunSeconds: null,
  maxLeaseSeconds: 86_400,
  maxNeverStopDays: 30,
  dormantAfterDays: null,
  archiveAfterDays: null,
  deleteAfterDays: null,
  deleteNoticeDays: 14,
  brakePercent: 25,
  holidays: '',
  webhook: null,
  etag: 'one',
};

test('cleanup --dry-run lists what is due and why; without it nothing happens', async () => {
  server.on(previewCleanup, () => ({
    items: [
      {
        workspaceId: '01990000-0000-7000-8000-000000000005',
        workspace: 'ada/web',
        template: 'local',
        action: 'hold',
        cause: 'idle',
        at: moment,
        text: 'Idle since 14:02, held back by the brake.',
      },
    ],
    next: null,
  }));
  const ran = await home.run(['cleanup', '--dry-run'], { env });
  expect(ran.stdout).toContain(`ada/web\tlocal\thold\tidle\t${moment}\tIdle since 14:02`);
  expect(ran.stderr).toContain('The brake holds back 1. Let it go ahead: cde cleanup release');
  expect(await home.json(['cleanup', '-n'], { env })).toHaveLength(1);
  expect(await home.run(['cleanup'], { env })).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('Add --dry-run'),
  });
});

test('cleanup release asks first', async () => {
  server.on(releaseBrake, () => ({ released: 3 }));
  expect((await home.run(['cleanup', 'release', '--yes'], { env })).stdout).toBe(
    'The brake let 3 workspaces go.\n',
  );
  expect(await home.run(['cleanup', 'release'], { env })).toMatchObject({ code: 2 });
});

test('cleanup policy shows the bounds and sets those that are named', async () => {
  let bounds = storedPolicy;
  server.on(getCleanupPolicy, () => bounds);
  server.on(setCleanupPolicy, ({ body }) => {
    bounds = { ...body, etag: 'one' };
    return bounds;
  });
  expect((await home.run(['cleanup', 'policy'], { env })).stdout).toContain('default-stop-after\t2 h\n');
  expect(bounds).toBe(storedPolicy);
  bounds = { ...storedPolicy, maxStopAfterSeconds: 3600 };
  expect((await home.run(['cleanup', 'policy'], { env })).stdout).toContain(
    'default-stop-after\t2 h (limited to 1 h by max-stop-after)\n',
  );
  bounds = storedPolicy;
  const holidays = 'BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20261225\nEND:VEVENT\nEND:VCALENDAR';
  await writeFile(join(home.path, 'holidays.ics'), holidays);
  const sets = [
    'default-stop-after=never',
    'max-stop-after=12h',
    'brake-percent=20',
    'dormant-after-days=60',
    'archive-after-days=90',
    'delete-after-days=365',
    'delete-notice-days=30',
    'holidays=@holidays.ics',
    'webhook=https://example.com/hook?a=b',
  ];
  const ran = await home.run(['cleanup', 'policy', ...sets.flatMap((set) => ['--set', set])], { env });
  expect(ran).toMatchObject({ code: 0, stdout: expect.stringContaining('an iCalendar file with 1 event\n') });
  expect(bounds).toEqual({
    ...storedPolicy,
    defaultStopAfterSeconds: null,
    maxStopAfterSeconds: 43_200,
    brakePercent: 20,
    dormantAfterDays: 60,
    archiveAfterDays: 90,
    deleteAfterDays: 365,
    deleteNoticeDays: 30,
    holidays,
    webhook: { url: 'https://example.com/hook?a=b' },
  });
  bounds = { ...bounds, holidays: `${holidays}\n${holidays}` };
  expect((await home.run(['cleanup', 'policy'], { env })).stdout).toContain('file with 2 events\n');
  const refused = async (set: string) =>
    (await home.run(['cleanup', 'policy', '--set', set], { env })).stderr;
  expect(await refused('foo=1')).toMatch(/^error: There is no setting "foo"\. .*\n.*: default-stop-after, /);
  expect(await refused('max-run')).toContain('For example: --set max-run=7d');
  expect(await refused('max-lease=none')).toContain('max-lease cannot be none.');
  for (const wrong of ['brake=1', 'max-run=soon', 'brake-percent=many', 'max-lease=none'])
    expect(await home.run(['cleanup', 'policy', '--set', wrong], { env }), wrong).toMatchObject({ code: 2 });
});

test('cleanup policy keeps what another admin has set meanwhile, and names settings in errors', async () => {
  let stored = storedPolicy;
  server.on(getCleanupPolicy, () => stored);
  server.on(setCleanupPolicy, ({ body }) => {
    if (stored.etag === 'one') stored = { ...stored, brakePercent: 50, etag: 'two' };
    if (body.etag !== stored.etag)
      throw new Refusal(409, { code: 'cleanup-policy-changed', message: 'Another admin has changed it.' });
    stored = { ...body, etag: 'three' };
    return stored;
  });
  const ran = await home.run(['cleanup', 'policy', '--set', 'max-never-stop-days=7'], { env });
  expect(ran).toMatchObject({ code: 0, stderr: '' });
  expect(stored).toMatchObject({ brakePercent: 50, maxNeverStopDays: 7 });
  server.on(setCleanupPolicy, () => {
    throw new Refusal(400, {
      code: 'bad-request',
      message: 'The default cannot be never.',
      issues: [{ path: 'defaultStopAfterSeconds', message: 'cannot be never' }],
    });
  });
  expect(await home.run(['cleanup', 'policy', '--set', 'default-stop-after=never'], { env })).toMatchObject({
    stderr: expect.stringContaining('default-stop-after is not valid: cannot be never.'),
  });
});

test('cleanup report has a row for each key, and the sum', async () => {
  const asked: unknown[] = [];
  server.on(getCleanupReport, ({ query }) => {
    asked.push(query);
    return {
      from: moment,
      to: moment,
      rows: [
        { key: 'go', runningHours: 10, stoppedHours: 30, stops: 4 },
        { key: 'node', runningHours: 50, stoppedHours: 10, stops: 1 },
      ],
    };
  });
  const ran = await home.run(['cleanup', 'report', '--days', '7', '--by', 'owner'], { env });
  expect(asked).toEqual([{ days: '7', by: 'owner' }]);
  expect(ran.stdout).toBe('OWNER\tSAVED\tRUNNING\tSTOPS\ngo\t30\t10\t4\nnode\t10\t50\t1\n');
  expect(ran.stderr).toContain('40.0 h saved in 5 stops: 40 % of the hours');
});
