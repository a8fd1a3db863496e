import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../../../tests/kit/until.ts';
import { makeActivity } from '../activity.ts';
import { findBuild } from './builds.ts';
import { readInterfaces } from './network-traffic.ts';
import { makeProcessScanner } from './processes.ts';
import { makeWorkSampler } from './work.ts';

let root: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cde-work-'));
  mkdirSync(join(root, 'proc/net'), { recursive: true });
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(root, { recursive: true, force: true });
});

const workspaceId = '01980000-0000-7000-8000-000000000001';

interface Fake {
  pid: number;
  name: string;
  parent?: number;
  cpuMs?: number;
  childrenMs?: number;
  bytes?: number;
  workspace?: string;
  command?: string[];
}
function put({ pid, name, parent = 1, cpuMs = 0, childrenMs = 0, bytes = 0, workspace, command }: Fake) {
  const folder = join(root, 'proc', String(pid));
  mkdirSync(folder, { recursive: true });
  const fields = [
    'S',
    parent,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    cpuMs / 10,
    0,
    childrenMs / 10,
    0,
    20,
    0,
    1,
    0,
    777,
  ];
  writeFileSync(join(folder, 'stat'), `${pid} (${name}) ${fields.join(' ')} 0 0\n`);
  writeFileSync(join(folder, 'io'), `rchar: 9\nread_bytes: 0\nwrite_bytes: ${bytes}\n`);
  writeFileSync(join(folder, 'environ'), workspace ? `A=b\0CDE_WORKSPACE_ID=${workspace}\0` : 'A=b\0');
  writeFileSync(join(folder, 'cmdline'), (command ?? [name]).join('\0'));
}

function sampler(options: {
  group?: { cpuMs: number; diskBytes: number };
  network?: { bytes: number; own: number };
}) {
  let at = 0;
  const { group, network } = options;
  const activity = makeActivity({ now: () => at });
  const work = makeWorkSampler({
    activity,
    usage: {
      isGroup: group !== undefined,
      cpuMs: async () => group!.cpuMs,
      diskBytes: async () => group?.diskBytes ?? null,
      memory: async () => ({ used: 0, limit: null }),
      limitsHit: async () => ({ throttledMs: null, outOfMemoryKills: 0 }),
    },
    workspaceId: group ? null : workspaceId,
    helpers: () => ({ cpuMs: 0, diskBytes: 0 }),
    interfaceBytes: () => network?.bytes ?? null,
    ownTraffic: () => network?.own ?? 0,
    root,
    now: () => at,
  });
  return {
    work,
    pass(ms: number) {
      at += ms;
    },
    async after(ms: number) {
      at += ms;
      await work.sample();
      return activity
        .report()
        .signals.filter(({ ageMs }) => ageMs === 0)
        .map(({ signal, by }) => `${signal} ${by}`);
    },
  };
}

test('the CPU of the workspace’s processes and of the children that they waited for, by name', async () => {
  const { after } = sampler({});
  put({ pid: process.pid, name: 'cde-agent', cpuMs: 1000 });
  put({ pid: 100, name: 'bash', parent: process.pid, workspace: workspaceId });
  put({ pid: 101, name: 'make (2)', parent: 100, cpuMs: 200 });
  put({ pid: 200, name: 'stranger', workspace: 'another' });
  expect(await after(1000)).toEqual([]);
  // The agent and another workspace are busy: neither is activity.
  put({ pid: process.pid, name: 'cde-agent', cpuMs: 60_000 });
  put({ pid: 200, name: 'stranger', cpuMs: 60_000, workspace: 'another' });
  put({ pid: 101, name: 'make (2)', parent: 100, cpuMs: 1000, childrenMs: 1000 });
  expect(await after(60_000)).toEqual([]);
  put({ pid: 101, name: 'make (2)', parent: 100, cpuMs: 1000, childrenMs: 4500 });
  expect(await after(60_000)).toEqual(['process-cpu make (2)']);
  expect(await after(60_000)).toEqual([]);
});

test('a process that ends is not busy: what it used moves to its parent', async () => {
  const { after } = sampler({});
  put({ pid: 100, name: 'bash', workspace: workspaceId });
  put({ pid: 101, name: 'language-server', parent: 100, cpuMs: 3_600_000 });
  await after(1000);
  rmSync(join(root, 'proc/101'), { recursive: true });
  put({ pid: 100, name: 'bash', childrenMs: 3_600_000, workspace: workspaceId });
  expect(await after(60_000)).toEqual([]);
});

test('with a control group, its CPU and disk less the agent’s own', async () => {
  const own = process.cpuUsage();
  const group = { cpuMs: (own.user + own.system) / 1000, diskBytes: 0 };
  const { after } = sampler({ group });
  put({ pid: 100, name: 'cc1' });
  await after(1000);
  group.cpuMs += 100;
  expect(await after(60_000)).toEqual([]);
  // Above what this test process itself can have used meanwhile.
  group.cpuMs += 600_000;
  put({ pid: 100, name: 'cc1', cpuMs: 600_000 });
  expect(await after(60_000)).toEqual(['process-cpu cc1']);
  group.diskBytes += 100 * 1024 * 1024;
  expect(await after(60_000)).toEqual(['disk-throughput undefined']);
});

test('disk throughput by process, without a control group', async () => {
  const { after } = sampler({});
  put({ pid: 100, name: 'tar', bytes: 5e9, workspace: workspaceId });
  await after(1000);
  put({ pid: 100, name: 'tar', cpuMs: 10, bytes: 5e9 + 20 * 1024 * 1024, workspace: workspaceId });
  expect(await after(60_000)).toEqual([]);
  put({ pid: 100, name: 'tar', cpuMs: 20, bytes: 5e9 + 60 * 1024 * 1024, workspace: workspaceId });
  expect(await after(60_000)).toEqual(['disk-throughput tar']);
});

test('network throughput less the agent’s own', async () => {
  const network = { bytes: 1e9, own: 0 };
  const { after } = sampler({ network });
  put({ pid: 100, name: 'curl', workspace: workspaceId });
  await after(1000);
  // A download through the agent.
  network.bytes += 1e8;
  network.own += 1e8;
  expect(await after(60_000)).toEqual([]);
  network.bytes += 4e6;
  put({ pid: 100, name: 'curl', cpuMs: 10, workspace: workspaceId });
  expect(await after(60_000)).toEqual(['network-throughput curl']);
});

test('what happens during a pause does not count afterwards either', async () => {
  const network = { bytes: 0, own: 0 };
  const { work, pass, after } = sampler({ network });
  put({ pid: 100, name: 'save', workspace: workspaceId });
  await after(1000);
  const resume = work.pause();
  expect(await after(30_000)).toEqual([]);
  put({ pid: 100, name: 'save', cpuMs: 600_000, bytes: 1e9, workspace: workspaceId });
  network.bytes = 1e9;
  pass(10_000);
  await resume();
  expect(await after(5000)).toEqual([]);
  expect(await after(60_000)).toEqual([]);
  // Of what follows, everything.
  put({ pid: 100, name: 'save', cpuMs: 606_000, bytes: 1e9, workspace: workspaceId });
  expect(await after(10_000)).toEqual(['process-cpu save']);
});

test('the interfaces of the network but those within the workspace', () => {
  expect(readInterfaces(root)).toBeNull();
  const line = (name: string, received: number, sent: number) =>
    `${name}: ${received} 1 0 0 0 0 0 0 ${sent} 1 0 0 0 0 0 0`;
  const table = [
    'Inter-|',
    ' face |bytes',
    line('    lo', 1e6, 1e6),
    line('  eth0', 100, 20),
    line('docker0', 7, 7),
  ];
  writeFileSync(join(root, 'proc/net/dev'), table.join('\n'));
  expect(readInterfaces(root)).toBe(120);
});

test.each([
  [['docker', 'build', '.'], 'docker'],
  [['/usr/bin/docker', 'buildx', 'build', '.'], 'docker'],
  [['docker', 'compose', '-f', 'a.yaml', 'build'], 'docker'],
  [['docker', '--context', 'build', 'image', 'build', '.'], 'docker'],
  [['docker', '-H', 'tcp://build', '--debug', 'builder', 'build', '.'], 'docker'],
  [['docker', 'buildx', '--builder', 'remote', 'bake'], 'docker'],
  [['docker', 'compose', '-f', 'a', '-f', 'b', '-p', 'c', '--profile', 'd', 'build'], 'docker'],
  [['docker-compose', '-f', 'a.yaml', 'build'], 'docker-compose'],
  [['docker-compose', 'compose', 'build'], 'docker-compose'],
  [['docker-buildx', 'buildx', 'build', '.'], 'docker-buildx'],
  [['docker-buildx', 'bake'], 'docker-buildx'],
  [['docker-buildx', 'ls'], undefined],
  [['docker', 'run', 'image'], undefined],
  [['docker', 'exec', '-it', 'build', 'bash'], undefined],
  [['docker', 'run', '--name', 'build', 'x'], undefined],
  [['docker', '--context', 'build', 'ps'], undefined],
  [['docker', 'compose', '-p', 'build', 'up'], undefined],
  [['docker', 'compose', 'up', 'build'], undefined],
  [['docker'], undefined],
  [['cde', 'build', 'web'], 'cde'],
  [['cde', '--server', 'work', 'build', 'web'], 'cde'],
  [['cde', '--server', 'build', 'list'], undefined],
  [['cde', 'ssh', 'build'], undefined],
  [['node', '/usr/bin/cde', 'ssh', 'build'], undefined],
  [['node', '--import', './hook.mjs', '/usr/bin/cde', '--json', 'build'], 'cde'],
  [['node', 'server.js', '/usr/bin/cde', 'build'], undefined],
  [['buildctl', 'debug', 'workers'], 'buildctl'],
  [['podman', 'build', '.'], 'podman'],
  [['node', '/usr/bin/cde', 'build', 'web'], 'cde'],
  [['node', 'server.js', 'build'], undefined],
  [['make', 'build'], undefined],
])('%j is a build: %s', async (command, found) => {
  const name = command[0]!.split('/').at(-1)!;
  put({ pid: 100, name, command });
  expect(await findBuild([{ pid: 100, name }], root)).toBe(found);
});

test('sessions do not wait while the arguments of many processes are read', async () => {
  put({ pid: 100, name: 'node', command: ['node', 'server.js'] });
  const search = findBuild(
    Array.from({ length: 200 }, () => ({ pid: 100, name: 'node' })),
    root,
  ).then(() => 'found');
  expect(await Promise.race([search, new Promise((resolve) => setImmediate(resolve, 'others'))])).toBe(
    'others',
  );
  expect(await search).toBe('found');
});

test.runIf(process.platform === 'linux')('real processes of a workspace, and theirs', async () => {
  const start = (environment: Record<string, string>, script: string) => {
    const child = spawn('sh', ['-c', script], { env: { PATH: process.env.PATH, ...environment } });
    children.push(child);
    return child;
  };
  const id = 'workspace-of-this-test';
  const mine = start({ CDE_WORKSPACE_ID: id }, 'env -i sh -c "while :; do :; done" & wait');
  start({ CDE_WORKSPACE_ID: 'another' }, 'sleep 600; :');
  const scanner = makeProcessScanner({ workspaceId: id, withDisk: true });
  const busy = await until(async () => {
    const { processes } = await scanner.scan();
    return processes.some(({ cpuMs }) => cpuMs > 50) ? processes : null;
  }, 'CPU of the loop');
  expect(busy.map(({ pid }) => pid)).toContain(mine.pid);
  expect(busy).toHaveLength(2);
  for (const { pid } of busy) process.kill(pid, 'SIGKILL');
});
