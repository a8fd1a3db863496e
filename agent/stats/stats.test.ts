import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentStats, postAgentStats } from '@cde/api/agent.ts';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeActivity } from '../activity/activity.ts';
import { makeServerClient } from '../server/client.ts';
import { makeSessions } from '../sessions.ts';
import { until } from '../ssh/fixture.ts';
import { makeTestServer, token } from '../testing.ts';
import { reportStats } from './report.ts';
import { makeStatsCollector } from './stats.ts';

let folder: string;
const children: ChildProcess[] = [];
const servers: Server[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-stats-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const server of servers.splice(0)) server.close();
  await rm(folder, { recursive: true, force: true });
});

const linux = process.platform === 'linux';

test('a sample of this machine matches the schema, with home and sessions', async () => {
  const sessions = makeSessions();
  const ended = sessions.open('shell');
  sessions.open('exec')();
  const collector = await makeStatsCollector({ home: () => folder, sessions });
  const stats = AgentStats.parse(await collector.sample());
  expect(stats.cpuPercent).toBeGreaterThanOrEqual(0);
  expect(stats.memoryUsedBytes).toBeGreaterThan(1e7);
  expect(stats.homeTotalBytes).toBeGreaterThan(stats.homeUsedBytes!);
  expect(stats.homeUsedBytes).toBeGreaterThan(0);
  expect(stats.homeFreeBytes).toBeLessThan(stats.homeTotalBytes!);
  const used = stats.homeUsedBytes! / (stats.homeUsedBytes! + stats.homeFreeBytes!);
  expect(stats.homeFullPercent! / 100).toBeCloseTo(used, 2);
  expect(stats.sessions.map(({ kind }) => kind)).toEqual(['shell']);
  ended();
  expect((await collector.sample()).sessions).toEqual([]);
});

test.skipIf(!linux)(
  'open ports with the names of their processes, less the agent’s own (needs /proc)',
  async () => {
    const listen =
      'require("net").createServer().listen(0, HOST, function () { console.log(this.address().port) })';
    const ports = await Promise.all(
      ['"127.0.0.1"', '"::1"'].map(async (host) => {
        const child = spawn(process.execPath, ['-e', listen.replace('HOST', host)]);
        children.push(child);
        let said = '';
        child.stdout.on('data', (chunk: Buffer) => {
          said += chunk;
        });
        return until(() => Number(said) || undefined, 'a port');
      }),
    );
    const own = createServer();
    servers.push(own);
    await new Promise<void>((resolve) => own.listen(0, '127.0.0.1', resolve));
    const collector = await makeStatsCollector({ home: () => folder, sessions: makeSessions() });
    for (let sample = 0; sample < 2; sample += 1) {
      const { openPorts } = await collector.sample();
      for (const port of ports) {
        expect(openPorts).toContainEqual({ port, process: expect.stringMatching(/node|MainThread/) });
      }
      expect(openPorts.map(({ port }) => port)).not.toContain((own.address() as { port: number }).port);
    }
    children[0]!.kill('SIGKILL');
    await until(async () => {
      const { openPorts } = await collector.sample();
      return !openPorts.some(({ port }) => port === ports[0]);
    }, 'the port is gone');
  },
);

async function root(files: Record<string, string>): Promise<string> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(join(folder, path, '..'), { recursive: true });
    await writeFile(join(folder, path), text);
  }
  return folder;
}

test('control groups: version 2, version 1, and none', async () => {
  const sample = async (files: Record<string, string>) => {
    await rm(folder, { recursive: true, force: true });
    const collector = await makeStatsCollector({
      home: () => '/',
      sessions: makeSessions(),
      root: await root(files),
    });
    const { memoryUsedBytes, memoryLimitBytes, cpuPercent } = await collector.sample();
    return [memoryUsedBytes, memoryLimitBytes, cpuPercent];
  };
  const two = (path: string, max: string) => ({
    'proc/self/cgroup': `0::${path}\n`,
    [`sys/fs/cgroup${path}/memory.current`]: '5000000\n',
    [`sys/fs/cgroup${path}/memory.max`]: `${max}\n`,
    [`sys/fs/cgroup${path}/memory.stat`]: 'anon 1\ninactive_file 1000000\n',
    [`sys/fs/cgroup${path}/cpu.stat`]: 'usage_usec 1000\nuser_usec 500\n',
  });
  expect(await sample(two('/cde/w1', '20000000'))).toEqual([4_000_000, 20_000_000, 0]);
  expect(await sample(two('/', 'max'))).toEqual([4_000_000, null, 0]);
  expect(
    await sample({
      'proc/self/cgroup': '5:cpu,cpuacct:/w1\n4:memory:/w1\n',
      'sys/fs/cgroup/memory/w1/memory.usage_in_bytes': '7000000\n',
      'sys/fs/cgroup/memory/w1/memory.limit_in_bytes': '9223372036854771712\n',
      'sys/fs/cgroup/memory/w1/memory.stat': 'total_inactive_file 2000000\n',
      'sys/fs/cgroup/cpuacct/w1/cpuacct.usage': '123456789\n',
    }),
  ).toEqual([5_000_000, null, 0]);
  // The group of the whole machine is nobody's: the processes of this user count.
  const ofMachine = {
    'proc/self/cgroup': '5:cpuacct:/\n4:memory:/\n',
    'proc/self/stat': '1 (a) S 0\n',
    'sys/fs/cgroup/memory/release_agent': '\n',
    'sys/fs/cgroup/memory/memory.usage_in_bytes': '7000000000\n',
    'sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
    'sys/fs/cgroup/cpuacct/cpuacct.usage': '123456789\n',
    'proc/7/stat': '7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20\n',
    'proc/7/status': 'Name: a\nVmRSS: 3000 kB\nRssAnon:\t    2000 kB\n',
    'proc/8/status': 'Name: b\nRssAnon:\t    1000 kB\n',
  };
  if (linux) expect(await sample(ofMachine)).toEqual([3_072_000, null, 0]);
  const [used, limit] = await sample({ 'proc/meminfo': 'MemTotal: 10 kB\nMemAvailable: 0 kB\n' });
  expect([used! > 1e7, limit]).toEqual([true, null]);
});

test('a home that shares its disk is counted, and has no total', async () => {
  await writeFile(join(folder, 'file'), Buffer.alloc(300_000, 1));
  const options = { home: () => folder, sessions: makeSessions(), ownVolume: false, memoryLimit: 2 ** 50 };
  const collector = await makeStatsCollector(options);
  const first = AgentStats.parse(await collector.sample());
  expect(first).toMatchObject({ homeTotalBytes: null, memoryLimitBytes: expect.any(Number) });
  const homeUsedBytes = await until(
    async () => (await collector.sample()).homeUsedBytes ?? undefined,
    'a count',
  );
  expect(homeUsedBytes).toBeGreaterThanOrEqual(300_000);
  expect(homeUsedBytes).toBeLessThan(5_000_000);
  // The disk that it shares can be full, too.
  expect(await collector.sample()).toMatchObject({
    homeTotalBytes: null,
    homeFreeBytes: expect.any(Number),
    homeFullPercent: expect.any(Number),
  });
});

test('CPU usage is the CPU time between two samples', async () => {
  await mkdir(join(folder, 'proc/self'), { recursive: true });
  await mkdir(join(folder, 'sys/fs/cgroup'), { recursive: true });
  await writeFile(join(folder, 'proc/self/cgroup'), '0::/\n');
  await writeFile(join(folder, 'sys/fs/cgroup/memory.current'), '1000\n');
  const use = (ms: number) => writeFile(join(folder, 'sys/fs/cgroup/cpu.stat'), `usage_usec ${ms * 1000}\n`);
  let elapsedMs = 0;
  await use(5_000);
  const collector = await makeStatsCollector({
    home: () => folder,
    sessions: makeSessions(),
    root: folder,
    elapsedMs: () => elapsedMs,
  });
  elapsedMs = 10_000;
  await use(20_000);
  expect((await collector.sample()).cpuPercent).toBe(150);
  elapsedMs = 20_000;
  expect((await collector.sample()).cpuPercent).toBe(0);
});

test('a sample yields to the event loop at least every 10 ms of CPU time', async () => {
  const collector = await makeStatsCollector({ home: () => folder, sessions: makeSessions() });
  await collector.sample();
  // CPU time of this thread, which other programs do not affect. Garbage collection does, so the best of several rounds counts.
  const usedMs = () => {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  };
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 20 && best > 10; round += 1) {
    let longest = 0;
    let last = usedMs();
    let isSampling = true;
    const turn = () => {
      const at = usedMs();
      longest = Math.max(longest, at - last);
      last = at;
      if (isSampling) setImmediate(turn);
    };
    setImmediate(turn);
    await collector.sample();
    isSampling = false;
    best = Math.min(best, longest);
  }
  expect(best).toBeLessThan(10);
});

test('reports go on after failures', async () => {
  const server = await makeTestServer();
  const signal = new AbortController();
  server.answer(postAgentStats.path, 500, 410, -1);
  const failures: unknown[] = [];
  reportStats({
    activity: makeActivity(),
    collector: await makeStatsCollector({ home: () => folder, sessions: makeSessions() }),
    client: makeServerClient({ urls: server.url, token }),
    everyMs: () => 100,
    signal: signal.signal,
    onFailure: (error) => failures.push(error),
  });
  await until(() => server.stats.length >= 3, 'three reports');
  signal.abort();
  expect(failures.length).toBe(3);
  expect(server.faults).toEqual([]);
  await server.close();
});

test('a round trip that becomes known is reported at once, in one report with what comes beside it', async () => {
  const server = await makeTestServer();
  const signal = new AbortController();
  const known: { url: string; rttMs: number }[] = [];
  let tell = () => {};
  reportStats({
    activity: makeActivity(),
    collector: await makeStatsCollector({
      home: () => folder,
      sessions: makeSessions(),
      satellites: () => [...known],
    }),
    client: makeServerClient({ urls: server.url, token }),
    everyMs: () => 3_600_000,
    signal: signal.signal,
    onFailure: (error) => expect(error).toBeUndefined(),
    satellites: {
      current: () => [...known],
      onChange(heard) {
        tell = heard;
      },
    },
  });
  await until(() => server.stats.length === 1, 'the first report');
  tell();
  for (const name of ['east', 'west']) {
    known.push({ url: `https://${name}.example.com`, rttMs: 1.5 });
    tell();
  }
  await until(() => server.stats.length === 2, 'the second report');
  expect(server.stats.map(({ satellites }) => satellites)).toEqual([[], known]);
  // Nothing new: nobody is told. The next is.
  tell();
  known[0]!.rttMs = 80;
  tell();
  await until(() => server.stats.length === 3, 'the third report');
  expect(server.stats[2]!.satellites).toEqual(known);
  signal.abort();
  await server.close();
});
