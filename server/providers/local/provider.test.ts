import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { compileCache } from '../../../tests/kit/compile-cache.ts';
import { until } from '../../../tests/kit/until.ts';
import type { StepResult } from '../provider.ts';
import { startTimeOf } from './processes.ts';
import {
  drive,
  fakeAgents,
  isRoot,
  launchOf,
  levelsHere,
  makeScene,
  makeSpec,
  mountSmallDisk,
} from './testing.ts';

let scene: ReturnType<typeof makeScene>;
beforeEach(() => {
  scene = makeScene();
});
afterEach(() => scene.close());

type Made = ReturnType<typeof scene.provider>;
const start = (provider: Made, buildId = 'b1', state = {}, local = {}) =>
  drive((s) => provider.start(makeSpec('w1', local), launchOf(buildId), s, scene.context), state);
const stop = (provider: Made, state = {}) => drive((s) => provider.stop('w1', s, scene.context), state);
function done<Done>(result: StepResult<Done>) {
  if (result.kind !== 'done') throw new Error(JSON.stringify(result));
  return result;
}
/** How many agents have ever written a line into the home. An agent creates the file before it writes. */
const everStarted = () => {
  const file = join(scene.home('w1'), 'started');
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').length - 1 : 0;
};

const levels = await levelsHere();
describe.each(levels)('%s', (isolation) => {
  test('starts, is running, stops, and keeps the home', async () => {
    const provider = scene.provider('polite', { isolation });
    const move = done(await start(provider));
    expect(move.isolation).toMatch(new RegExp(`^${isolation}: `));
    expect(provider.describeHome(move.state).directory).toBe(
      isolation === 'none' ? scene.home('w1') : '/home/ada',
    );
    expect(scene.lines.join('\n')).toMatch(
      /home .*w1 created\n.*isolation: .*\n(.*\n)*agent started, pid \d+/,
    );
    expect(await provider.observe('w1', move.state)).toEqual({ kind: 'running' });
    done(await start(provider, 'b1', move.state));
    expect(scene.lines.at(-1)).toMatch(/running already/);
    await until(() => everStarted() === 1, 'the agent in its home');

    expect(done(await stop(provider, move.state)).state).toEqual({});
    expect(await provider.observe('w1', {})).toMatchObject({ kind: 'gone', cause: 'missing' });
    expect(scene.agents()).toEqual([]);
    expect(everStarted()).toBe(1);
    done(await stop(provider));
  });

  test('a later server adopts it, even without its state', async () => {
    const first = scene.provider('polite', { isolation });
    const { state } = done(await start(first));
    await first.close();
    const second = scene.provider('polite', { isolation });
    expect(await second.observe('w1', {})).toEqual({ kind: 'running' });
    expect(done(await start(second, 'b1', {})).state).toEqual(state);
    expect(scene.agents()).toHaveLength(1);
    const ended: string[] = [];
    second.onChange((workspaceId) => ended.push(workspaceId));
    process.kill(scene.agents()[0]!, 'SIGKILL');
    await until(() => ended.length > 0, 'the end of an adopted agent');
    expect(await second.observe('w1', state)).toEqual({
      kind: 'gone',
      cause: 'agent-exited',
      message: expect.stringMatching(/^The agent was killed by SIGKILL/),
    });
  });

  test('only the agent gets its token, on stdin', async () => {
    const provider = scene.provider('curious', { isolation });
    done(await start(provider, 'b1'));
    const found = join(scene.home('w1'), 'stdin');
    await until(() => existsSync(found) && readFileSync(found, 'utf8') === 'token-of-b1', 'the token');
  });

  test('a newer build replaces the older one', async () => {
    const provider = scene.provider('polite', { isolation });
    const { state } = done(await start(provider, 'b1'));
    const [older] = await until(
      () => (scene.agents().length === 1 ? scene.agents() : null),
      'the first agent',
    );
    const move = done(await start(provider, 'b2', state));
    expect(await provider.observe('w1', move.state)).toEqual({ kind: 'running' });
    expect(scene.agents()).toHaveLength(1);
    expect(scene.agents()[0]).not.toBe(older);
  });

  test('an agent that does not stop is killed with all its processes', async () => {
    const provider = scene.provider('stubborn', { isolation, graceMs: 200 });
    const { state } = done(await start(provider));
    const children = await until(() => {
      const all = readdirSync('/proc').filter((name) => {
        try {
          const argv = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
          return argv[0] === 'sleep' && /^77700[01]$/.test(argv[1]!);
        } catch {
          return false;
        }
      });
      return all.length >= 2 ? all : null;
    }, 'its children');
    const times = await Promise.all(children.map((pid) => startTimeOf(Number(pid))));
    done(await stop(provider, state));
    expect(scene.agents()).toEqual([]);
    expect(scene.supervisors()).toEqual([]);
    for (const [index, pid] of children.entries())
      expect(await startTimeOf(Number(pid))).not.toBe(times[index]);
    expect(scene.lines.join('\n')).toMatch(/did not stop within 0\.2 s and is killed/);
  });

  test('an agent that dies at once fails the start with the reason, and can be started again', async () => {
    const provider = scene.provider('failing', { isolation });
    const ended: string[] = [];
    provider.onChange((workspaceId) => ended.push(workspaceId));
    let move = await start(provider);
    if (move.kind === 'done') {
      // It had started, so the exit is noticed a moment later.
      await until(() => ended.length > 0, 'its end');
      const seen = await provider.observe('w1', move.state);
      expect(seen).toMatchObject({
        kind: 'gone',
        cause: 'agent-exited',
        message: expect.stringMatching(/code 3: (.*\n)*no such server/),
      });
      move = await start(provider, 'b1', move.state);
    }
    expect(move).toMatchObject({
      kind: 'failed',
      error: {
        code: 'agent-died',
        message: expect.stringMatching(/code 3/),
        detail: expect.stringMatching(/no such server: it said no/),
      },
    });
    const before = everStarted();
    const repaired = scene.provider('polite', { isolation });
    done(await start(repaired, 'b1', move.state));
    await until(() => everStarted() === before + 1, 'another start');
  });

  test('two servers that start it at the same time start only one agent', async () => {
    const [a, b] = [scene.provider('polite', { isolation }), scene.provider('polite', { isolation })];
    await Promise.all([a.isolation(), b.isolation()]);
    for (let round = 0; round < 5; round++) {
      const results = await Promise.all([start(a, `b${round}`), start(b, `b${round}`)]);
      expect(done(results[0]).state).toEqual(done(results[1]).state);
      expect(scene.agents()).toHaveLength(1);
      await until(everStarted, (count) => count === round + 1);
      done(await stop(round % 2 ? a : b));
      // The slower server's supervisor may only now find that it is not needed.
      await until(() => scene.supervisors().length === 0, 'the supervisors to leave');
    }
    expect(everStarted()).toBe(5);
  });

  test(
    'a server killed at any moment of a start leaves one agent or none, and the next finds it',
    { timeout: 120_000 },
    async () => {
      const next = scene.provider('polite', { isolation });
      await next.isolation();
      for (let round = 0; round < 8; round++) {
        const buildId = `b${round}`;
        const words = [
          scene.dataDir,
          scene.skeleton,
          scene.tag,
          isolation,
          fakeAgents.polite,
          scene.tag,
          buildId,
        ];
        const server = spawn(process.execPath, [join(import.meta.dirname, 'crashing.ts'), ...words], {
          stdio: ['pipe', 'pipe', 'inherit'],
          // Shared by all tests: compiled once.
          env: { ...process.env, ...compileCache },
        });
        await new Promise((resolve) => server.stdout.once('data', resolve));
        const gone = new Promise((resolve) => server.once('exit', resolve));
        server.stdin.write('go\n');
        // At a different point in each round, from before the spawn to after the end of the move.
        const from = performance.now();
        await until(() => performance.now() - from >= round * 11 + 3, 'the moment');
        server.kill('SIGKILL');
        await gone;
        const { state } = done(await start(next, buildId));
        expect(await next.observe('w1', state)).toEqual({ kind: 'running' });
        await until(() => scene.agents().length === 1, 'exactly one agent');
        expect(scene.supervisors().length).toBeGreaterThan(0);
        if (round % 3 === 2) done(await stop(next, state));
      }
      done(await stop(next));
      await until(() => scene.agents().length === 0 && scene.supervisors().length === 0, 'none');
      // Never more than one per build, although each was started twice.
      expect(everStarted()).toBeLessThanOrEqual(8);
    },
  );
});

test('a stop revokes the permission of a supervisor that has not started yet', async () => {
  const provider = scene.provider('polite');
  const { state } = done(await start(provider));
  done(await stop(provider, state));
  // The killed server's spawn may still run, at any later time.
  const script = join(import.meta.dirname, 'supervisor.sh');
  const late = spawn('/bin/sh', [
    script,
    'launch',
    join(scene.dataDir, 'run/w1'),
    'b1',
    'm',
    'none',
    '1000',
    '',
    'sleep',
    '1',
  ]);
  expect(await new Promise((resolve) => late.once('exit', resolve))).toBe(76);
});

test('a late supervisor of the same build does not start the agent again after it has ended', async () => {
  const provider = scene.provider('failing', { isolation: 'none' });
  const folder = join(scene.dataDir, 'run/w1');
  const command = ['launch', folder, 'b1', 'm', 'none', '1000'];
  /** The supervisor of another server, which saw `previous` as the newest run when it decided to start. */
  async function superviseAfter(previous: string): Promise<number> {
    const late = spawn(
      '/bin/sh',
      [
        ...[join(import.meta.dirname, 'supervisor.sh'), ...command, previous],
        ...['sh', '-c', 'echo late >>"$HOME/started"'],
      ],
      { env: { ...process.env, HOME: scene.home('w1'), CDE_LOCAL_WORKSPACE: 'w1' } },
    );
    return new Promise((resolve) => late.once('exit', (code) => resolve(code ?? 1)));
  }
  // Both servers saw no run; this one was faster, and its agent has already ended.
  await start(provider);
  await until(() => everStarted() === 1, 'the agent in its home');
  await until(() => scene.supervisors().length === 0, 'the first supervisor to leave');
  expect(await superviseAfter('')).toBe(76);
  expect(everStarted()).toBe(1);
  // One that has seen that run may start the next.
  const [seen] = readFileSync(join(folder, 'record'), 'utf8').split('\n');
  expect(await superviseAfter(seen!)).toBe(0);
  expect(everStarted()).toBe(2);
});

test('a reused pid is not mistaken for the agent, and not killed', async () => {
  const provider = scene.provider('polite');
  const { state } = done(await start(provider));
  done(await stop(provider, state));
  const bystander = spawn('sleep', ['1000']);
  try {
    const pid = bystander.pid!;
    const stale = { ...state, pid, main: pid, mainStart: '1', startTime: '1' };
    writeFileSync(join(scene.dataDir, 'run/w1/record'), `${JSON.stringify(stale)}\n`);
    expect(await provider.observe('w1', stale)).toMatchObject({ kind: 'gone' });
    done(await stop(provider, stale));
    done(await start(provider, 'b2', stale));
    // The same pid and time of another boot is another process too.
    const startTime = (await startTimeOf(pid))!;
    const rebooted = { ...stale, startTime, machine: 'another-boot/1' };
    done(await stop(provider));
    writeFileSync(join(scene.dataDir, 'run/w1/record'), `${JSON.stringify(rebooted)}\n`);
    expect(await provider.observe('w1', {})).toMatchObject({
      kind: 'gone',
      cause: 'node-restarted',
      message: 'The agent ended because the machine was restarted.',
    });
    done(await stop(provider, rebooted));
    expect(bystander.exitCode).toBe(null);
    expect(await startTimeOf(pid)).toBe(startTime);
  } finally {
    bystander.kill('SIGKILL');
  }
});

test.runIf(levels.includes('bwrap'))(
  'a supervisor that is killed takes its agent along (needs bwrap)',
  async () => {
    const provider = scene.provider('stubborn');
    const { state } = done(await start(provider));
    await until(() => scene.agents().length === 1, 'the agent');
    process.kill((state as { pid: number }).pid, 'SIGKILL');
    await until(() => scene.agents().length === 0, 'its end');
    await until(async () => (await provider.observe('w1', state)).kind === 'gone', 'news of it');
    done(await start(provider, 'b1', state));
  },
);

test('remove retains or discards the home, and can be repeated', async () => {
  const provider = scene.provider('polite');
  done(await start(provider));
  await until(() => everStarted() === 1, 'a file in the home');
  const remove = (home: 'keep' | 'discard') => drive((s) => provider.remove('w1', s, home, scene.context));
  done(await remove('keep'));
  done(await remove('keep'));
  expect(scene.agents()).toEqual([]);
  const aside = join(scene.dataDir, 'homes/.set-aside');
  expect(readdirSync(aside)).toEqual([expect.stringMatching(/^w1\.\d+$/)]);
  expect(readFileSync(join(aside, readdirSync(aside)[0]!, 'started'), 'utf8')).toMatch(/\d/);
  expect(await provider.purgeHomes({ retainedBefore: new Date(Date.now() - 60_000) })).toMatchObject({
    purged: [],
  });
  expect(await provider.purgeHomes({ retainedBefore: new Date(Date.now() + 1_000) })).toMatchObject({
    purged: ['w1'],
  });

  done(await start(provider, 'b2'));
  done(await remove('discard'));
  done(await remove('discard'));
  expect(readdirSync(aside)).toEqual([]);
  expect(readdirSync(join(scene.dataDir, 'run'))).toEqual([]);
  if (isRoot && process.platform === 'linux') expect(readdirSync(join(scene.dataDir, 'uids'))).toEqual([]);
});

test('the log of a verbose agent stays small, and contains its last lines', async () => {
  const provider = scene.provider('loud');
  done(await start(provider));
  const run = join(scene.dataDir, 'run/w1');
  await until(() => readdirSync(run).includes('agent.log.1'), 'a turned log');
  // A log that is rotated between the two reads has a new name by then.
  const sizes = () =>
    readdirSync(run)
      .filter((name) => name.startsWith('agent.log'))
      .map((name) => statSync(join(run, name), { throwIfNoEntry: false })?.size ?? 0);
  for (let look = 0; look < 50; look++) expect(Math.max(...sizes())).toBeLessThan(3 << 20);
});

test.runIf(isRoot && process.platform === 'linux')(
  'a full or read-only disk is reported, and once it is fixed the start works',
  async () => {
    const disk = mkdtempSync(join(tmpdir(), 'cde-disk-'));
    const unmount = mountSmallDisk(disk, '256k');
    const small = makeScene({ dataDir: disk });
    try {
      const provider = small.provider('polite');
      await provider.isolation();
      const begin = () => drive((s) => provider.start(makeSpec('w1'), launchOf('b1'), s, small.context));
      const fill = join(disk, 'fill');
      try {
        writeFileSync(fill, Buffer.alloc(1 << 20));
      } catch {
        // The disk is full now.
      }
      writeFileSync(join(small.skeleton, '.bashrc'), 'x'.repeat(5000));
      expect(await begin()).toMatchObject({
        kind: 'failed',
        error: { code: 'home-disk-full', hint: expect.stringMatching(/space/) },
      });
      rmSync(fill);
      execFileSync('mount', ['-o', 'remount,ro', disk]);
      expect(await begin()).toMatchObject({ kind: 'failed', error: { code: 'home-read-only' } });
      execFileSync('mount', ['-o', 'remount,rw', disk]);
      const move = done(await begin());
      expect(readFileSync(join(disk, 'homes/w1/.bashrc'), 'utf8')).toHaveLength(5000);
      done(await drive((s) => provider.stop('w1', s, small.context), move.state));
    } finally {
      await small.close();
      unmount();
      rmSync(disk, { recursive: true, force: true });
    }
  },
);
