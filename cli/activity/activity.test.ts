import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import {
  createLease,
  endLease,
  getWorkspaceActivity,
  type IdleChoices,
  type Lease,
  listActivityEvents,
  setIdleChoices,
} from '@cde/api/activity.ts';
import { createTicket, getWorkspace, listWorkspaces } from '@cde/api/workspaces.ts';
import { afterAll, expect, test } from 'vitest';
import { until } from '../../tests/kit/until.ts';
import { Refusal, startFakeServer } from '../testing/cli.ts';
import { activity, activityEvent, workspace } from '../testing/objects.ts';

const { home, server, env } = await startFakeServer();

const fromNow = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString();
const id = (n: number) => `01990000-0000-7000-8000-${String(n).padStart(12, '0')}`;
const awake = () => ({
  awakeBecause: { kind: 'signal', signal: 'terminal-input', at: fromNow(-120), by: 'ada' } as const,
  stopsAt: fromNow(1500),
  cause: 'idle' as const,
  waitsForReport: false,
  held: false,
});

test('show and list say why a workspace is awake and when it stops', async () => {
  const running = () => workspace({ status: 'running', latestBuild: null, idle: awake() });
  server.on(getWorkspace, running);
  server.on(listWorkspaces, () => ({ items: [running()], next: null }));
  const shown = await home.run(['show', 'web'], { env });
  expect(shown.stdout).toMatch(/^awake\tbecause of terminal input by ada \(2 min ago\)$/m);
  expect(shown.stdout).toMatch(
    /^stops\tat .+ \(in 2[45] min\) by the idle policy unless there is more activity/m,
  );
  const [head, row] = (await home.run(['list'], { env })).stdout.split('\n').map((line) => line.split('\t'));
  expect(Date.parse(row![head!.indexOf('STOPS')]!)).toBeGreaterThan(Date.now());
});

test('activity shows signals, leases, the policy with its limits, and the history in pages', async () => {
  server.on(getWorkspaceActivity, () =>
    activity({
      state: awake(),
      policy: { ...activity().policy, limited: ['stopAfterSeconds'] },
      leases: [
        { id: id(7), by: 'workspace', reason: 'thinking', createdAt: fromNow(0), expiresAt: fromNow(600) },
      ],
    }),
  );
  const all = Array.from({ length: 30 }, (_, at) => activityEvent(at, { text: `Number ${at}.` }));
  server.on(listActivityEvents, ({ query }) => {
    const from = Number(query.after ?? 0);
    const items = all.slice(from, from + Math.min(Number(query.limit), 12));
    const next = from + items.length;
    return { items, next: next < all.length ? String(next) : null };
  });
  const { stdout } = await home.run(['activity', 'web'], { env });
  expect(stdout).toMatch(/^stop after\t2 h without activity \(limited by the installation\)$/m);
  expect(stdout).toMatch(/^terminal-input\tperson\t2026-01-01T00:00:00.000Z\tada$/m);
  expect(stdout).toContain('a program in it\t');
  expect(stdout).toContain('Number 19.');
  expect(stdout).not.toContain('Number 20.');
  expect((await home.json(['activity', 'web', '--all'], { env })).events).toHaveLength(30);
  expect((await home.json(['activity', 'web', '--limit', '3'], { env })).events).toHaveLength(3);
});

test('schedule changes only what is named, and default is the template again', async () => {
  let choices: IdleChoices = { stopAfterSeconds: 60, startOnConnect: true };
  const sent: IdleChoices[] = [];
  server.on(getWorkspaceActivity, () => activity({ choices }));
  server.on(setIdleChoices, ({ body }) => {
    sent.push(body);
    choices = body;
    return activity({ choices });
  });
  const run = async (...words: string[]) => {
    const ran = await home.run(['schedule', 'web', ...words], { env });
    expect(ran.stderr).toBe('');
    expect(ran.code).toBe(0);
    return choices;
  };
  await run();
  expect(sent).toEqual([]);
  expect(await run('--stop-after', '1h30m')).toEqual({ stopAfterSeconds: 5400, startOnConnect: true });
  expect(await run('--stop-after', 'never')).toMatchObject({ stopAfterSeconds: null });
  expect(await run('--stop-after', 'default')).toEqual({ startOnConnect: true });
  await run(
    '--daily-start',
    '08:30',
    '--daily-stop',
    '19:00',
    '--days',
    'Saturday-mon,WED',
    '--time-zone',
    'Europe/Vienna',
  );
  const schedule = {
    start: '08:30',
    stop: '19:00',
    days: ['mon', 'wed', 'sat', 'sun'],
    timeZone: 'Europe/Vienna',
  };
  expect(choices).toEqual({ startOnConnect: true, schedule });
  expect(await run('--daily-stop', '20:00')).toMatchObject({ schedule: { ...schedule, stop: '20:00' } });
  expect(await run('--no-schedule', '--start-on-connect', 'off')).toEqual({
    startOnConnect: false,
    schedule: null,
  });
  await run('--never-stop', '2d', '--reason', 'load test');
  expect(choices.neverStop?.reason).toBe('load test');
  expect(Date.parse(choices.neverStop!.until) - Date.now()).toBeGreaterThan(47 * 3600_000);
  expect(await run('--no-never-stop')).toMatchObject({ neverStop: null });
});

test.each([
  ['--never-stop 2d', 'needs a reason'],
  ['--no-schedule --daily-stop 19:00', 'excludes'],
  ['--days mon-fri', 'needs --daily-start or --daily-stop'],
  ['--stop-after soon', 'a length of time'],
  ['--daily-stop 19:00 --days someday', 'days of the week'],
  ['--daily-stop 19:00 --days monkey', 'days of the week, not "monkey"'],
  ['--daily-stop 19:00 --days mon-wed-fri', 'days of the week, not "mon-wed-fri"'],
  ['--daily-stop 19:00 --days mon-', 'days of the week'],
])('schedule %s is refused', async (line, message) => {
  server.on(getWorkspaceActivity, () => activity());
  const ran = await home.run(['schedule', 'web', ...line.split(' ')], { env });
  expect(ran).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(message) });
});

test.each([
  ['--daily-stop 19:00 --time-zone Europe/Vienna', 'schedule.timeZone', '--time-zone'],
  ['--daily-start 08:30', 'schedule.start', '--daily-start'],
  ['--stop-after 300d', 'stopAfterSeconds', '--stop-after'],
  ['--never-stop 90d --reason test', 'neverStop.until', '--never-stop'],
])('schedule %s is refused in the words of the command line', async (line, path, option) => {
  server.on(getWorkspaceActivity, () => activity());
  server.on(setIdleChoices, () => {
    throw new Refusal(400, {
      code: 'bad-request',
      message: "The request's body is not valid.",
      detail: `${path}: is wrong`,
      issues: [{ path, message: 'is wrong' }],
    });
  });
  const ran = await home.run(['schedule', 'web', ...line.split(' ')], { env });
  expect(ran.stderr).toMatch(new RegExp(`^error: ${option} is not valid: is wrong\\. `));
});

test('times are those of a clock, and days are rounded', async () => {
  const until = fromNow(7 * 86_400 - 20);
  server.on(getWorkspaceActivity, () =>
    activity({ policy: { ...activity().policy, neverStop: { until, by: 'ada', reason: 'load test' } } }),
  );
  const { stdout } = await home.run(['schedule', 'web'], { env });
  expect(stdout).toMatch(
    /^never stop\tuntil \w{3} \d+ \w+( \d{4})? \d\d:\d\d \(in 7 days\), by ada: load test$/m,
  );
});

test('a stopped workspace says when its schedule starts it, and nothing of a running agent', async () => {
  const startsAt = fromNow(5 * 3600);
  server.on(getWorkspace, () =>
    workspace({ status: 'stopped', reason: 'Stopped by its daily schedule.', idle: null }),
  );
  server.on(getWorkspaceActivity, () => activity({ startsAt, reportedAt: null }));
  server.on(listActivityEvents, () => ({
    items: [activityEvent(1, { kind: 'lease-granted', text: 'kept awake for 1 h by ada' })],
    next: null,
  }));
  const starts = /^starts\tat .+ \(in (5 h|4 h 59 min)\) by its daily schedule$/m;
  const shown = (await home.run(['show', 'web'], { env })).stdout;
  expect(shown).toMatch(starts);
  expect(shown).toMatch(/^reason\tStopped by its daily schedule\.$/m);
  const { stdout } = await home.run(['activity', 'web'], { env });
  expect(stdout).toMatch(starts);
  expect(stdout).not.toContain('reported');
  expect(stdout).toMatch(/\tkeep-awake\t.*kept awake for 1 h by ada/);
  expect(stdout).not.toContain('lease');
});

test('keep-awake promises no more than the maximum run time leaves', async () => {
  server.on(createLease, ({ body }) => ({
    id: id(100),
    by: 'ada',
    reason: body.reason,
    createdAt: fromNow(0),
    expiresAt: fromNow(3 * 3600),
    runEndsAt: fromNow(1800),
  }));
  const { stdout } = await home.run(['keep-awake', 'web', '--for', '3h'], { env });
  expect(stdout).toMatch(/^web stays awake only until .+ \(in 30 min\), when its maximum run time ends/);
});

/** The leases of a workspace whose server grants `grantedSeconds`. */
function serveLeases(grantedSeconds = 10_800) {
  const held = new Map<string, Lease>();
  const granted: { seconds: number; reason: string }[] = [];
  server.on(createLease, ({ body }) => {
    granted.push(body);
    const lease = {
      id: id(100 + granted.length),
      by: 'ada',
      reason: body.reason,
      createdAt: fromNow(0),
      expiresAt: fromNow(grantedSeconds),
    };
    held.set(lease.id, lease);
    return lease;
  });
  server.on(endLease, ({ params }) => {
    held.delete(params.lease!);
  });
  server.on(getWorkspaceActivity, () => activity({ leases: [...held.values()] }));
  return { held, granted };
}

test('keep-awake asks for a lease; --end ends all of them', async () => {
  const { held, granted } = serveLeases();
  const lease = await home.json(['keep-awake', 'web', '--for', '3h', '--reason', 'demo'], { env });
  expect(granted).toEqual([{ seconds: 10_800, reason: 'demo' }]);
  expect(held.has(lease.id)).toBe(true);
  const said = await home.run(['keep-awake', 'web', '--for', '3h'], { env });
  expect(said.stdout).toMatch(/^web stays awake until .+ \(in (3 h|2 h 59 min)\)\.$/m);
  expect((await home.json(['keep-awake', 'web', '--end'], { env })).ended).toHaveLength(2);
  expect(held.size).toBe(0);
  expect((await home.run(['keep-awake', 'web', '--end'], { env })).stdout).toBe(
    'No keep-awake of web is active.\n',
  );
});

test('keep-awake without --for is for an hour', async () => {
  const { granted } = serveLeases();
  expect(await home.run(['keep-awake', 'web'], { env })).toMatchObject({ code: 0 });
  expect(granted).toEqual([{ seconds: 3600, reason: '' }]);
});

test('keep-awake says what is missing', async () => {
  expect(await home.run(['keep-awake', '--for', '3h'], { env })).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('Name the workspace.'),
  });
  const outside = await home.run(['keep-awake', '--end'], { env });
  expect(outside).toMatchObject({ code: 2, stderr: expect.stringContaining('Name the workspace.') });
});

test('keep-awake with a command fails without a lease if the workspace is stopped', async () => {
  const { granted } = serveLeases();
  server.on(createTicket, () => {
    throw new Refusal(409, { code: 'workspace-not-running', message: 'ada/web is stopped.' });
  });
  server.on(getWorkspace, () => workspace({ status: 'stopped', desired: 'stopped', latestBuild: null }));
  const ran = await home.run(['keep-awake', 'web', '--', 'true'], { env });
  expect(ran).toMatchObject({ code: 5, stderr: expect.stringContaining('web is stopped.') });
  expect(granted).toEqual([]);
});

// The agent's door for programs in the workspace.
const leases = new Set<string>();
const asked: { seconds: number; reason: string }[] = [];
let grantedSeconds = 3600;
const agent = createServer(async (request, response) => {
  let text = '';
  for await (const chunk of request) text += chunk;
  const reply = (status: number, body?: unknown) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(body === undefined ? undefined : JSON.stringify(body));
  };
  if (request.method === 'POST' && request.url === '/keep-awake') {
    asked.push(JSON.parse(text));
    if (asked.at(-1)!.reason === 'too much')
      return reply(403, { code: 'lease-limit', message: 'Too many keep-awakes.' });
    const lease = id(200 + asked.length);
    leases.add(lease);
    return reply(201, { id: lease, createdAt: fromNow(0), expiresAt: fromNow(grantedSeconds) });
  }
  leases.delete(request.url!.split('/').at(-1)!);
  reply(204);
});
const socket = join(home.path, 'agent.sock');
await new Promise<void>((resolve) => agent.listen(socket, resolve));
afterAll(() => new Promise((resolve) => agent.close(resolve)));

test('in a workspace keep-awake needs neither a name nor a login', async () => {
  const inside = { CDE_AGENT_SOCKET: socket };
  const lease = await home.json(['keep-awake', '--for', '30m', '--reason', 'thinking'], { env: inside });
  expect(asked.at(-1)).toEqual({ seconds: 1800, reason: 'thinking' });
  expect(leases.has(lease.id)).toBe(true);
  const refused = await home.run(['keep-awake', '--for', '1h', '--reason', 'too much'], { env: inside });
  expect(refused).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('Too many keep-awakes. [lease-limit]'),
  });
  leases.clear();
});

test('in a workspace a command runs here; its lease is renewed, and ends with it', async () => {
  const inside = { CDE_AGENT_SOCKET: socket };
  grantedSeconds = 1;
  const before = asked.length;
  const running = home.start(
    ['keep-awake', '--', 'sh', '-c', 'echo begun;\nwhile [ ! -e go ]; do sleep 0.1; done; exit 7'],
    {
      env: inside,
    },
  );
  await running.says('begun');
  await until(() => asked.length >= before + 3, 'two renewals');
  expect(asked.at(-1)).toMatchObject({
    seconds: 1800,
    reason: expect.stringContaining('sh -c echo begun; while'),
    renews: expect.any(String),
  });
  await writeFile(join(home.path, 'go'), '');
  expect((await running.ended).code).toBe(7);
  expect([...leases]).toEqual([]);
});

test('in a workspace --end takes an ID without a login, or ends all of the workspace', async () => {
  const inside = { CDE_AGENT_SOCKET: socket, CDE_WORKSPACE: 'ada/web' };
  const begun = await home.run(['keep-awake'], { env: inside });
  expect(asked.at(-1)).toEqual({ seconds: 3600, reason: '' });
  const [lease] = leases;
  expect(begun.stderr).toContain(`cde keep-awake --end ${lease}`);
  expect(await home.run(['keep-awake', '--end', lease!], { env: inside })).toMatchObject({
    code: 0,
    stdout: 'The keep-awake has ended.\n',
  });
  expect(leases.size).toBe(0);
  const { held } = serveLeases();
  await home.run(['keep-awake', 'ada/web'], { env });
  expect(held.size).toBe(1);
  await home.run(['keep-awake', '--end'], { env: { ...env, ...inside } });
  expect(held.size).toBe(0);
});

test('an agent that cannot be reached is named', async () => {
  const ran = await home.run(['keep-awake', '--for', '1h'], { env: { CDE_AGENT_SOCKET: `${socket}.gone` } });
  expect(ran).toMatchObject({ code: 6, stderr: expect.stringContaining('[agent-socket-failed]') });
});
