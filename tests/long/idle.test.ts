import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Signal, WorkspaceActivity } from '@cde/api/activity.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Api, agentPids, makeApi } from '../kit/api.ts';
import { freePort } from '../kit/free-port.ts';
import { type Machine, makeMachine, type Running, type Server } from '../kit/machine.ts';
import { until } from '../kit/until.ts';

/** Idle cleanup with the real server, agent and OpenSSH. The idle period is a few seconds, so that it passes for real. */
const has = (program: string) => {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};
const hasSsh = has('ssh');
const idleSeconds = 15;
/** Accepts a connection at port 8000 and reads what comes. */
const editorServer = `perl -MIO::Socket -e '$| = 1; $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:8000", Listen => 5)
  or die; print "listening\\n"; while ($c = $s->accept) { while (sysread $c, $b, 999) {} }'`;
const tidy = 'name: tidy\nprovider: local\nshutdown:\n  script: echo bye > ~/shutdown.txt\n';
const slow = 'name: slow\nprovider: local\nshutdown:\n  script: touch ~/asked; sleep 3600\n  timeout: 30m\n';
/** Thousands of short processes, one after the other. */
const makefile = `all: $(addprefix object-,$(shell seq 100000))
object-%: ; @${has('cc') ? 'echo "int f(int x) { return x * x; }" | cc -O2 -x c -c -o /dev/null -' : 'i=0; while [ $$i -lt 100000 ]; do i=$$((i + 1)); done'}`;

let machine: Machine;
let server: Server;
let api: Api;
beforeAll(async () => {
  machine = await makeMachine();
  await mkdir(machine.env.HOME!, { recursive: true });
  server = await machine.start();
  api = await makeApi(machine, server.url);
  const { body: bounds } = await api('GET', '/api/v1/cleanup/policy');
  expect(
    (await api('PUT', '/api/v1/cleanup/policy', { ...bounds, minStopAfterSeconds: null, brakePercent: 100 }))
      .status,
  ).toBe(200);
  for (const text of ['name: brief\nprovider: local\n', tidy, slow])
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
let created = 0;
/** The name differs in each attempt of a test. Nothing stops the workspace yet: a busy machine may take long until it is used. */
async function create(purpose: string, template = 'brief'): Promise<string> {
  created += 1;
  const name = `${purpose}-${created}`;
  const made = await machine.cde('create', name, '--template', template);
  if (made.code !== 0) throw new Error(made.stderr);
  return name;
}
/** Resolves with the time since when the workspace stops if nothing keeps it awake. */
async function stopAfter(name: string, stopAfterSeconds: number): Promise<number> {
  const chosen = await api('PUT', `/api/v1/workspaces/${name}/idle-policy`, { stopAfterSeconds });
  expect(chosen.body).toMatchObject({ policy: { stopAfterSeconds } });
  return Date.now();
}
const stopWhenIdle = (name: string) => stopAfter(name, idleSeconds);
/** Starts it to look into it, for which a busy machine may need longer than the idle period. */
async function startAgain(name: string): Promise<void> {
  await stopAfter(name, 3600);
  expect((await machine.cde('start', name)).code).toBe(0);
}
async function lastSeen(name: string, signal: Signal): Promise<number | null> {
  const { lastAt } = (await activity(name)).signals.find((each) => each.signal === signal)!;
  return lastAt === null ? null : Date.parse(lastAt);
}
/** Waits until a signal was last seen more than two idle periods later: without it, the workspace would have stopped. */
async function staysAwakeBy(name: string, signal: Signal): Promise<void> {
  await until(() => lastSeen(name, signal), `the first ${signal}`);
  const since = await stopWhenIdle(name);
  await until(
    () => lastSeen(name, signal),
    (at) => at! - since > 2 * idleSeconds * 1000,
  );
  expect(await show(name)).toMatchObject({ status: 'running', idle: { awakeBecause: { signal } } });
}
const end = async (running: Running) => {
  running.process.kill();
  await running.ended;
};

/** Computes until its session ends, which a process group of its own (timeout's default) would not notice. */
const loop = 'timeout --foreground 3600 sh -c "while :; do :; done"';

describe.skipIf(!hasSsh).concurrent('a workspace', () => {
  test('that nobody uses stops by itself, says why, and has its home when it is started again', async () => {
    const name = await create('unused');
    expect((await machine.cde('ssh', name, '--', 'echo kept > file')).code).toBe(0);
    await stopWhenIdle(name);
    const { latestBuild } = await untilStopped(name);
    expect(latestBuild).toMatchObject({
      initiator: 'system',
      reason: expect.stringMatching(/^stopped because it was idle; the last activity was its start/),
    });
    await startAgain(name);
    expect((await machine.cde('ssh', name, '--', 'cat file')).stdout).toBe('kept\n');
  });

  test('stops under a shell and a command that are open and do nothing', async () => {
    const name = await create('attached');
    const attached = machine.begin(['ssh', name, '--', 'echo there; exec sleep 10000']);
    await attached.says('there');
    await stopWhenIdle(name);
    await untilStopped(name);
    const { code, stderr } = await attached.ended;
    expect([code, stderr]).toEqual([255, expect.stringContaining('stopped')]);
  });

  test('runs on while a command prints, and stops after it', async () => {
    const name = await create('printing');
    const printing = machine.begin(['ssh', name, '--', 'while echo tick; do sleep 1; done']);
    await staysAwakeBy(name, 'command-output');
    await end(printing);
    await untilStopped(name);
  });

  test('runs on while its processes compute, and stops after them', async () => {
    const name = await create('computing');
    // Several, because the machine may be busy.
    const computing = machine.begin(['ssh', name, '--', `for i in 1 2 3 4; do ${loop} & done; wait`]);
    await staysAwakeBy(name, 'process-cpu');
    await end(computing);
    await untilStopped(name);
  });

  test.skipIf(!has('make'))('runs on while make compiles without a word, and stops after it', async () => {
    const name = await create('making');
    const command = `cat > Makefile <<'END'\n${makefile}\nEND\nexec make -s -j4`;
    const making = machine.begin(['ssh', name, '--', command]);
    await staysAwakeBy(name, 'process-cpu');
    await end(making);
    await untilStopped(name);
  });

  test('stops under an editor that is attached and only sends heartbeats', async () => {
    const name = await create('editor');
    // As VS Code does: its server runs as a command, and its protocol goes through a forwarded port.
    const serving = machine.begin(['ssh', name, '--', editorServer]);
    await serving.says('listening');
    const port = await freePort();
    const forwarded = machine.begin(['port-forward', name, `${port}:8000`]);
    await forwarded.says(String(port));
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    const heartbeat = setInterval(() => socket.write(Buffer.alloc(13)), 5_000);
    await stopWhenIdle(name);
    await untilStopped(name);
    clearInterval(heartbeat);
    socket.destroy();
    await Promise.all([end(serving), end(forwarded)]);
  });

  test('runs on while a lease holds, and stops after it', async () => {
    const name = await create('leased');
    const { body: lease } = await api('POST', `/api/v1/workspaces/${name}/leases`, { seconds: 3600 });
    await stopWhenIdle(name);
    const { leases, state } = await activity(name);
    expect({ leases, state }).toMatchObject({
      leases: [{ id: lease.id }],
      state: { awakeBecause: { kind: 'lease' } },
    });
    await api('DELETE', `/api/v1/workspaces/${name}/leases/${lease.id}`);
    await untilStopped(name);
  });

  test('stays if a key is pressed while it is being stopped', async () => {
    const name = await create('typed', 'slow');
    const config = join(machine.folder, `ssh-${name}`);
    expect(await machine.cde('config-ssh', '--ssh-config', config)).toMatchObject({ code: 0 });
    const ssh = spawn('ssh', ['-tt', '-F', config, `${name}.cde`], { env: machine.env, cwd: machine.folder });
    let shown = '';
    ssh.stdout.on('data', (chunk: Buffer) => {
      shown += chunk;
    });
    ssh.stdin.on('error', () => {});
    await until(() => shown, 'the prompt');
    const { id } = await show(name);
    await stopWhenIdle(name);
    await until(() => existsSync(join(machine.folder, 'data/homes', id, 'asked')), 'the shutdown script');
    ssh.stdin.write('x');
    await until(
      () => activity(name),
      ({ state }) => state?.awakeBecause.kind === 'signal' && state.awakeBecause.signal === 'terminal-input',
    );
    await stopAfter(name, 3600);
    const { body: events } = await api('GET', `/api/v1/workspaces/${name}/activity/events`);
    expect(events.items).toContainEqual(
      expect.objectContaining({
        kind: 'stop-vetoed',
        text: expect.stringContaining('terminal input by owner'),
      }),
    );
    expect(await show(name)).toMatchObject({ status: 'running', latestBuild: { transition: 'start' } });
    ssh.kill();
  });

  test('runs its shutdown script before it stops', async () => {
    const name = await create('tidy', 'tidy');
    await stopWhenIdle(name);
    await untilStopped(name);
    await startAgain(name);
    expect((await machine.cde('ssh', name, '--', 'cat shutdown.txt; rm shutdown.txt')).stdout).toBe('bye\n');
    expect((await machine.cde('stop', name)).code).toBe(0);
    expect((await machine.cde('start', name)).code).toBe(0);
    expect((await machine.cde('ssh', name, '--', 'cat shutdown.txt')).stdout).toBe('bye\n');
  });
});

/** After the others, since it ends their server. */
describe.skipIf(!hasSsh)('a server that was unreachable for longer than the idle period', () => {
  test('stops nothing before its agent has reported, and then only what is idle', async () => {
    const names = [await create('busy'), await create('idle'), await create('silent')] as const;
    const [busy, idle, silent] = names;
    const loops = 'for i in 1 2 3 4; do (while [ ! -e done ]; do :; done) & done; wait';
    const started = await machine.cde('ssh', busy, '--', `setsid sh -c '${loops}' > /dev/null 2>&1 &`);
    expect(started.code).toBe(0);
    await until(() => lastSeen(busy, 'process-cpu'), 'the CPU of the loops');
    const pids = await agentPids((await show(silent)).id);
    // Or they could stop before the server is killed.
    const leaseSeconds = 60;
    for (const name of [idle, silent])
      await api('POST', `/api/v1/workspaces/${name}/leases`, { seconds: leaseSeconds });
    for (const name of names) await stopWhenIdle(name);
    await server.kill();
    const killedAt = Date.now();
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    const dueAt = killedAt + (leaseSeconds + idleSeconds) * 1000;
    await until(() => Date.now() > dueAt, 'the end of the idle period');
    server = await machine.start();
    const restartedAt = Date.now();

    // Its agent is asked, so sweeps take place.
    await untilStopped(idle);
    await until(
      () => show(silent),
      (workspace) => workspace.idle?.waitsForReport,
    );
    expect(await show(silent)).toMatchObject({ status: 'running' });
    await until(
      () => lastSeen(busy, 'process-cpu'),
      (at) => at! > restartedAt,
    );
    expect(await show(busy)).toMatchObject({ status: 'running', latestBuild: { transition: 'start' } });

    for (const pid of pids) process.kill(pid, 'SIGCONT');
    await untilStopped(silent);
    expect((await machine.cde('ssh', busy, '--', 'touch done')).code).toBe(0);
    await untilStopped(busy);
  });
});
