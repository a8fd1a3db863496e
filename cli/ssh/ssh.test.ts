import { generateKeyPairSync } from 'node:crypto';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { getWorkspaceActivity } from '@cde/api/activity.ts';
import { createTicket, getBuildLog, getWorkspace, startWorkspace } from '@cde/api/workspaces.ts';
import { expect, test } from 'vitest';
import { Refusal, startFakeServer } from '../testing/cli.ts';
import { activity, build, stage, workspace } from '../testing/objects.ts';

// What happens before there is a session; with agents and the real ssh: cli/server/start.test.ts and tests/e2e.test.ts.

const { home, server, env } = await startFakeServer();

const id = '01990000-0000-7000-8000-000000000005';
const ticket = {
  ticket: 'a.b.c',
  expiresAt: '2100-01-01T00:00:00.000Z',
  workspaceId: id,
  workspace: 'ada/web',
  agentKey: 'A'.repeat(43),
  sshHostKey: 'ssh-ed25519 AAAAC3Nza',
  username: 'ada',
  // Nothing listens there.
  satellites: [{ name: 'here', url: 'http://127.0.0.1:9' }],
};
const stopped = () => {
  throw new Refusal(409, { code: 'workspace-not-running', message: 'ada/web is stopped.' });
};

test('a ticket is bound to an Ed25519 key of this process, and the host key is pinned', async () => {
  const keys = new Set<string>();
  server.on(createTicket, ({ body }) => {
    keys.add(body.clientKey);
    return ticket;
  });
  for (const host of ['web.cde', 'WEB.Cde']) await home.run(['ssh', '--stdio', host], { env });
  expect(keys.size).toBe(2);
  const shape = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'der' });
  for (const key of keys) expect(Buffer.from(key, 'base64url')).toHaveLength(shape.length);
  const known = await readFile(join(home.path, '.config', 'cde', 'known_hosts'), 'utf8');
  expect(known).toBe('web.cde ssh-ed25519 AAAAC3Nza\n');
});

test('--stdio says what is wrong on stderr, nothing on stdout, and starts nothing', async () => {
  let started = false;
  server.on(createTicket, stopped);
  server.on(getWorkspace, () => workspace({ status: 'stopped', desired: 'stopped', latestBuild: null }));
  server.on(startWorkspace, () => {
    started = true;
    return build();
  });
  const ran = await home.run(['ssh', '--stdio', 'ada--web.cde'], { env });
  expect(ran).toMatchObject({ code: 5, stdout: '' });
  expect(ran.stderr).toContain('ada/web is stopped. [workspace-not-running]');
  expect(ran.stderr).toContain('Start it: cde start ada/web');
  expect(await home.run(['ssh', 'web', '--no-start'], { env })).toMatchObject({ code: 5 });
  expect(started).toBe(false);
});

test('without a terminal, cde ssh starts no workspace and prints how to start it', async () => {
  let startsOnConnect = false;
  let starts = 0;
  server.on(createTicket, stopped);
  server.on(getWorkspace, () => workspace({ status: 'stopped', desired: 'stopped', latestBuild: null }));
  server.on(getWorkspaceActivity, () =>
    activity({ policy: { ...activity().policy, startOnConnect: startsOnConnect } }),
  );
  server.on(startWorkspace, () => {
    starts++;
    throw new Refusal(403, { code: 'forbidden', message: 'Enough.' });
  });
  const ran = await home.run(['ssh', 'web', '--', 'true'], { env });
  expect(ran).toMatchObject({ code: 5, stdout: '' });
  expect(ran.stderr).toContain('Start it: cde start web, or add --start');
  expect(starts).toBe(0);
  await home.run(['ssh', '--start', 'web', '--', 'true'], { env });
  expect(starts).toBe(1);
  startsOnConnect = true;
  await home.run(['ssh', 'web', '--', 'true'], { env });
  expect(starts).toBe(2);
  await home.run(['ssh', '--no-start', 'web', '--', 'true'], { env });
  // Not for a program either.
  await home.run(['ssh', '--stdio', 'web.cde'], { env });
  expect(starts).toBe(2);
});

test.each([
  ['cp', 'web:notes.txt', '.'],
  ['sync', '--once', '.', 'web:project'],
  ['port-forward', 'web', '0:3000'],
])('cde %s has the rule of cde ssh for a stopped workspace', async (...words) => {
  const policy = { ...activity().policy, startOnConnect: false };
  let starts = 0;
  server.on(createTicket, stopped);
  server.on(getWorkspace, () => workspace({ status: 'stopped', desired: 'stopped', latestBuild: null }));
  server.on(getWorkspaceActivity, () => activity({ policy }));
  server.on(startWorkspace, () => {
    starts++;
    throw new Refusal(403, { code: 'forbidden', message: 'Enough.' });
  });
  const run = (...more: string[]) => home.run([...words, ...more], { env });
  expect(await run()).toMatchObject({
    code: 5,
    stderr: expect.stringContaining('Start it: cde start web, or add --start'),
  });
  expect(await run('--no-start')).toMatchObject({ code: 5 });
  expect(starts).toBe(0);
  await run('--start');
  expect(starts).toBe(1);
  policy.startOnConnect = true;
  await run();
  expect(starts).toBe(2);
  await run('--no-start');
  expect(starts).toBe(2);
});

test('cde rsync, which passes all options to rsync, does not suggest --start for a stopped workspace', async () => {
  server.on(createTicket, stopped);
  server.on(getWorkspace, () => workspace({ status: 'stopped', desired: 'stopped', latestBuild: null }));
  server.on(getWorkspaceActivity, () => activity());
  const ran = await home.run(['ssh-for-rsync', '-l', 'ada', 'web', 'rsync', '--server', '.'], { env });
  expect(ran.code).toBe(5);
  expect(ran.stderr).toMatch(/Start it: cde start web\n$/);
});

test('cde ssh --start starts a stopped workspace, and says when there is no ssh to run', async () => {
  let running = false;
  server.on(createTicket, () => (running ? ticket : stopped()));
  server.on(getWorkspace, () => workspace({ status: 'stopped', desired: 'stopped', latestBuild: null }));
  server.on(startWorkspace, () => build());
  server.on(getBuildLog, () => {
    running = true;
    const ended = { status: 'succeeded', finishedAt: '2026-01-01T00:01:00.000Z' } as const;
    return { lines: [], build: build({ ...ended, stages: [stage('queued'), stage('ready')] }), done: true };
  });
  const bin = join(home.path, 'empty');
  await mkdir(bin);
  await symlink(process.execPath, join(bin, 'node'));
  const ran = await home.run(['ssh', '--start', 'web', '--', 'true'], { env: { ...env, PATH: bin } });
  expect(ran.code).toBe(1);
  expect(ran.stderr).toContain('Starting web (build 1)');
  expect(ran.stderr).toContain('web: ready succeeded');
  expect(ran.stderr).toContain('[ssh-not-installed]');
  expect(running).toBe(true);
});

test('an unreachable satellite is reported as such', async () => {
  server.on(createTicket, () => ticket);
  const ran = await home.run(['ssh', '--stdio', 'web'], { env });
  expect(ran).toMatchObject({ code: 6, stdout: '' });
  expect(ran.stderr).toContain('[satellite-unreachable]');
});

test('a name that ssh would take for an option is refused', async () => {
  for (const name of ['-oProxyCommand=x', "a'b", 'a b'])
    expect(await home.run(['ssh', '--', name], { env })).toMatchObject({ code: 2 });
});

test('a host key that is more than one key for one host is not written down', async () => {
  const file = join(home.path, '.config', 'cde', 'known_hosts');
  const before = await readFile(file, 'utf8');
  for (const sshHostKey of ['ssh-rsa AAAA', '', 'ssh-ed25519 \u0000', 'ssh-ed25519 ../x!']) {
    server.on(createTicket, () => ({ ...ticket, sshHostKey }));
    const ran = await home.run(['ssh', '--stdio', 'web'], { env });
    expect(ran).toMatchObject({ code: 6, stdout: '', stderr: expect.stringContaining('[not-a-cde-server]') });
  }
  expect(await readFile(file, 'utf8')).toBe(before);
});
