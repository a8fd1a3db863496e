import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../../../tests/kit/until.ts';
import { findControllers, planLimits } from './limits.ts';
import { drive, isRoot, launchOf, levelsHere, makeScene, makeSpec } from './testing.ts';

let scene: ReturnType<typeof makeScene>;
beforeEach(() => {
  scene = makeScene();
});
afterEach(() => scene.close());

const places = process.platform === 'linux' ? findControllers(`cde-limits-${process.pid}`) : {};

for (const isolation of (await levelsHere()).filter((level) => level !== 'unshare')) {
  test.runIf(places.memory)(
    `${isolation}: an agent over the memory limit is killed, and the reason says so`,
    async () => {
      const provider = scene.provider('greedy', { isolation });
      const ended: string[] = [];
      provider.onChange((workspaceId) => ended.push(workspaceId));
      const move = await drive((state) =>
        provider.start(makeSpec('w1', { memory: '160Mi' }), launchOf('b1'), state, scene.context),
      );
      if (move.kind === 'done') {
        expect(move.isolation).toMatch(/Limits: memory 160Mi(, processes 8192 \(default\))?\.$/);
        await until(() => ended.length > 0, 'its end');
        expect(await provider.observe('w1', move.state)).toMatchObject({
          kind: 'gone',
          cause: 'out-of-memory',
          message: expect.stringMatching(/^The agent ran out of memory \(limit 160Mi\)/),
        });
      } else
        expect(move).toMatchObject({ kind: 'failed', error: { code: 'agent-out-of-memory', fault: 'user' } });
      await drive((state) => provider.stop('w1', state, scene.context));
      expect(existsSync(join(places.memory!.base, '..', scene.tag, 'w1'))).toBe(false);
    },
  );
}

test.runIf(places.cpu && places.pids)(
  'processes and cpus hold, and their cgroups go with the workspace',
  async () => {
    const provider = scene.provider('obedient');
    const spec = makeSpec('w1', { cpus: '0.5', processes: 40 });
    const move = await drive((state) => provider.start(spec, launchOf('b1'), state, scene.context));
    expect(move).toMatchObject({
      kind: 'done',
      isolation: expect.stringMatching(/Limits: cpus 0\.5, processes 40\.$/),
    });
    const [ask, answer] = ['ask-0', 'answer-0'].map((name) => join(scene.home('w1'), name));
    writeFileSync(ask!, 'for i in $(seq 60); do sleep 0.3 & done; wait', { mode: 0o644 });
    await until(() => existsSync(answer!), 'an answer');
    expect(JSON.parse(readFileSync(answer!, 'utf8')).out).toMatch(/fork/);
    const group = (base: string) => join(base, '..', scene.tag, 'w1');
    if (places.cpu!.version === 1) {
      expect(readFileSync(join(group(places.cpu!.base), 'cpu.cfs_quota_us'), 'utf8')).toBe('50000\n');
    }
    await drive((state) => provider.stop('w1', state, scene.context));
    for (const { base } of [places.cpu!, places.pids!]) expect(existsSync(group(base))).toBe(false);
  },
);

test('without a writable cgroup the workspace starts, and reports the limits that are not enforced', () => {
  const limits = planLimits(
    'w1',
    { memory: '2Gi', cpus: 1, processes: 100 },
    { controllers: {}, hasOwnUser: false },
  );
  expect(limits).toMatchObject({ settings: [], holding: [], memory: '2Gi' });
  expect(limits.missing).toEqual([
    'memory 2Gi (no writable cgroup for memory)',
    'cpus 1 (no writable cgroup for cpu)',
    'processes 100 (no writable cgroup for pids)',
  ]);
});

test('if neither the template nor the machine limits processes, the status says so', () => {
  const limits = planLimits('w1', {}, { controllers: {}, hasOwnUser: false });
  expect(limits).toMatchObject({ holding: [], maxUserProcesses: null });
  expect(limits.missing).toEqual(['processes (no writable cgroup for pids)']);
});

for (const isolation of (await levelsHere()).filter((level) => level !== 'none')) {
  test.runIf(isRoot)(
    `${isolation}: without a cgroup the workspace's own user limits processes, and no other workspace`,
    async () => {
      const provider = scene.provider('obedient', { isolation, cgroup: null });
      const begin = (workspaceId: string) =>
        drive((state) =>
          provider.start(makeSpec(workspaceId, { processes: 40 }), launchOf('b1'), state, scene.context),
        );
      expect(await begin('w1')).toMatchObject({
        kind: 'done',
        isolation: expect.stringMatching(/Limits: processes 40\.$/),
      });
      expect((await begin('w2')).kind).toBe('done');
      const bomb = 'for i in $(seq 60); do sleep 300 >/dev/null 2>&1 & done; echo all';
      const { out } = await scene.inside(`ulimit -u 60 || echo cannot be raised; ${bomb}`, 'w1');
      expect(out).toContain('cannot be raised');
      expect(out).toMatch(/fork/);
      expect(out).not.toContain('all');
      const few = 'for i in $(seq 15); do sleep 0.1 & done; wait; echo fine';
      expect((await scene.inside(few, 'w2')).out).toBe('fine\n');
    },
  );
}

test('processes have a default limit', () => {
  const base = mkdtempSync(join(tmpdir(), 'cde-cgroup-'));
  try {
    const limits = planLimits('w1', {}, { controllers: { pids: { version: 1, base } }, hasOwnUser: true });
    expect(limits.settings).toEqual([
      { group: join(base, 'w1'), file: 'pids.max', value: '8192', optional: false },
    ]);
    expect(limits).toMatchObject({ holding: ['processes 8192 (default)'], missing: [] });
  } finally {
    rmSync(base, { recursive: true });
  }
});

test('cgroup v2 has its own files and formats', () => {
  const base = mkdtempSync(join(tmpdir(), 'cde-cgroup-'));
  try {
    mkdirSync(base, { recursive: true });
    writeFileSync(join(base, 'cgroup.subtree_control'), 'memory cpu pids\n');
    const place = { version: 2 as const, base };
    const limits = planLimits(
      'w1',
      { memory: '1.5Gi', cpus: 1.5, processes: '50' },
      { controllers: { memory: place, cpu: place, pids: place }, hasOwnUser: true },
    );
    expect(
      limits.settings.map(({ group, file, value }) => [group === join(base, 'w1'), file, value]),
    ).toEqual([
      [true, 'memory.max', '1610612736'],
      [true, 'memory.swap.max', '0'],
      [true, 'cpu.max', '150000 100000'],
      [true, 'pids.max', '50'],
    ]);
  } finally {
    rmSync(base, { recursive: true });
  }
});

test.each([
  { memory: 'lots' },
  { memory: '1Mi' },
  { cpus: 'two' },
  { cpus: 0 },
  { processes: -1 },
])('%o is no limit', async (local) => {
  const provider = scene.provider('polite');
  const move = await drive((state) =>
    provider.start(makeSpec('w1', local as never), launchOf('b1'), state, scene.context),
  );
  expect(move).toMatchObject({ kind: 'failed', error: { code: 'template-limit-invalid', fault: 'user' } });
});
