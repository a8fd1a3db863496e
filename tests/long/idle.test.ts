import { execFileSync } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Signal, WorkspaceActivity } from '@cde/api/activity.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Api, makeApi } from '../kit/api.ts';
import { freePort } from '../kit/free-port.ts';
import { type Machine, makeMachine, type Running } from '../kit/machine.ts';
import { until } from '../kit/until.ts';

/** Idle cleanup with the real server, agent and OpenSSH. The idle period is a few seconds, so that it passes for real. */
const hasSsh = (() => {
  try {
    execFileSync('sh', ['-c', 'command -v ssh'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();
const idleSeconds = 15;
/** Accepts a connection at port 8000 and reads what comes. */
const editorServer = `perl -MIO::Socket -e '$| = 1; $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:8000", Listen => 5)
  or die; print "listening\\n"; while ($c = $s->accept) { while (sysread $c, $b, 999) {} }'`;
const tidy = 'name: tidy\nprovider: local\nshutdown:\n  script: echo bye > ~/shutdown.txt\n';

let machine: Machine;
let api: Api;
beforeAll(async () => {
  machine = await makeMachine();
  await mkdir(machine.env.HOME!, { recursive: true });
  const server = await machine.start();
  api = await makeApi(machine, server.url);
  const { body: bounds } = await api('GET', '/api/v1/cleanup/policy');
  expect(
    (await api('PUT', '/api/v1/cleanup/policy', { ...bounds, minStopAfterSeconds: null, brakePercent: 100 }))
      .status,
  ).toBe(200);
  for (const text of ['name: brief\nprovider: local\n', tidy])
    expect((await api('POST', '/api/v1/templates', { files: { 'template.yaml': text } })).status).toBe(201);
});
afterAll(() => machine?.remove());

const show = async (name: string) => (await api('GET', `/api/v1/workspaces/${name}`)).body;
const activity = async (name: string): Promise<WorkspaceActivity> =>
  (await api('GET', `/api/v1/workspaces/${name}/activity`)).body;
const untilStopped = (name: string) =>
  until(
    () => show(name),
    ({ status }) => status === 'stopped',
  );
async function create(name: string, template = 'brief'): Promise<void> {
  const made = await machine.cde('create', name, '--template', template);
  if (made.code !== 0) throw new Error(made.stderr);
  const chosen = await api('PUT', `/api/v1/workspaces/${name}/idle-policy`, {
    stopAfterSeconds: idleSeconds,
  });
  expect(chosen.body).toMatchObject({ policy: { stopAfterSeconds: idleSeconds } });
}
/** Waits until a signal was last seen more than two idle periods after the start: without it, it would have stopped. */
async function staysAwakeBy(name: string, signal: Signal): Promise<void> {
  const startedAt = Date.parse((await show(name)).latestBuild.finishedAt);
  await until(
    () => activity(name),
    ({ signals }) => {
      const { lastAt } = signals.find((each) => each.signal === signal)!;
      return lastAt !== null && Date.parse(lastAt) - startedAt > 2 * idleSeconds * 1000;
    },
  );
  expect(await show(name)).toMatchObject({ status: 'running', idle: { awakeBecause: { signal } } });
}
const end = async (running: Running) => {
  running.process.kill();
  await running.ended;
};

describe.skipIf(!hasSsh).concurrent('a workspace', () => {
  test('that nobody uses stops by itself, says why, and has its home when it is started again', async () => {
    await create('unused');
    expect((await machine.cde('ssh', 'unused', '--', 'echo kept > file')).code).toBe(0);
    const { latestBuild } = await untilStopped('unused');
    expect(latestBuild).toMatchObject({
      initiator: 'system',
      reason: expect.stringMatching(/^stopped because it was idle; the last activity was its start/),
    });
    expect((await machine.cde('start', 'unused')).code).toBe(0);
    expect((await machine.cde('ssh', 'unused', '--', 'cat file')).stdout).toBe('kept\n');
  });

  test('stops under a shell and a command that are open and do nothing', async () => {
    await create('attached');
    const attached = machine.begin(['ssh', 'attached', '--', 'echo there; exec sleep 1000']);
    await attached.says('there');
    await untilStopped('attached');
    const { code, stderr } = await attached.ended;
    expect([code, stderr]).toEqual([255, expect.stringContaining('stopped')]);
  });

  test('runs on while a command prints, and stops after it', async () => {
    await create('printing');
    const printing = machine.begin(['ssh', 'printing', '--', 'while echo tick; do sleep 1; done']);
    await staysAwakeBy('printing', 'command-output');
    await end(printing);
    await untilStopped('printing');
  });

  test('runs on while its processes compute, and stops after them', async () => {
    await create('computing');
    // Several, because the machine may be busy, and within this short period they have to use as much as in a minute.
    const loops = 'for i in 1 2 3 4; do timeout 60 sh -c "while :; do :; done" & done; wait';
    const computing = machine.begin(['ssh', 'computing', '--', loops]);
    await staysAwakeBy('computing', 'process-cpu');
    await end(computing);
    await untilStopped('computing');
  });

  test('stops under an editor that is attached and only sends heartbeats', async () => {
    await create('editor');
    // As VS Code does: its server runs as a command, and its protocol goes through a forwarded port.
    const serving = machine.begin(['ssh', 'editor', '--', editorServer]);
    await serving.says('listening');
    const port = await freePort();
    const forwarded = machine.begin(['port-forward', 'editor', `${port}:8000`]);
    await forwarded.says(String(port));
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    const heartbeat = setInterval(() => socket.write(Buffer.alloc(13)), 5_000);
    await untilStopped('editor');
    clearInterval(heartbeat);
    socket.destroy();
    await Promise.all([end(serving), end(forwarded)]);
  });

  test('runs on while a lease holds, and stops after it', async () => {
    await create('leased');
    const { body: lease } = await api('POST', '/api/v1/workspaces/leased/leases', { seconds: 600 });
    const { signals, ...state } = await activity('leased');
    expect(state).toMatchObject({ leases: [{ id: lease.id }], state: { awakeBecause: { kind: 'lease' } } });
    await api('DELETE', `/api/v1/workspaces/leased/leases/${lease.id}`);
    await untilStopped('leased');
  });

  test('runs its shutdown script before it stops', async () => {
    await create('tidy', 'tidy');
    await untilStopped('tidy');
    expect((await machine.cde('start', 'tidy')).code).toBe(0);
    expect((await machine.cde('ssh', 'tidy', '--', 'cat shutdown.txt; rm shutdown.txt')).stdout).toBe(
      'bye\n',
    );
    expect((await machine.cde('stop', 'tidy')).code).toBe(0);
    expect((await machine.cde('start', 'tidy')).code).toBe(0);
    expect((await machine.cde('ssh', 'tidy', '--', 'cat shutdown.txt')).stdout).toBe('bye\n');
  });
});
