/**
 * noded on this machine's kernel: how long a repair takes, whether everything is restored after `kill -9` at random moments, and what
 * it costs when nothing happens. It runs in a network namespace of its own, so that no setting of the machine changes.
 * Usage: node bench/noded.ts [KILLS] [IDLE-SECONDS]. Needs Linux, root, unshare and ip.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as breathe, setTimeout as delay } from 'node:timers/promises';

const inNamespace = 'CDE_BENCH_IN_NAMESPACE';
if (!process.env[inNamespace]) {
  const again = spawnSync(
    'unshare',
    ['--net', '--mount', process.execPath, import.meta.filename, ...process.argv.slice(2)],
    { stdio: 'inherit', env: { ...process.env, [inNamespace]: '1' } },
  );
  process.exit(again.status ?? 1);
}
execFileSync('ip', ['link', 'set', 'lo', 'up']);

const kills = Number(process.argv[2] ?? 100);
const idleSeconds = Number(process.argv[3] ?? 60);
/** To measure a bundle, or options of Node.js. */
const program = process.env.CDE_BENCH_NODED ?? join(import.meta.dirname, '../noded/main.ts');
const flags = (process.env.CDE_BENCH_NODE_OPTIONS ?? '--max-semi-space-size=1').split(' ');
const folder = mkdtempSync(join(tmpdir(), 'cde-bench-noded-'));
const file = join(folder, 'profiles.yaml');
/** More repairs of one sysctl within a minute are a contest, which is not what is measured. */
const repairsEach = 5;
const interfaces = 20;

const pathOf = (sysctl: string, root = '/proc/sys') => join(root, ...sysctl.split('.'));
const value = (sysctl: string, root?: string) => readFileSync(pathOf(sysctl, root), 'utf8').trim();
/** Whether the kernel takes the values that are tried here, unchanged. */
function takesLarger(sysctl: string): boolean {
  const original = value(sysctl);
  try {
    return [1, 2, 3, 4].every((step) => {
      const text = String(Number(original) + step);
      writeFileSync(pathOf(sysctl), text);
      return value(sysctl) === text;
    });
  } catch {
    return false;
  } finally {
    writeFileSync(pathOf(sysctl), original);
  }
}
const sysctls = [
  ...['fin_timeout', 'keepalive_time', 'keepalive_intvl', 'keepalive_probes', 'max_syn_backlog'],
  ...['max_tw_buckets', 'orphan_retries', 'reordering', 'max_reordering', 'retries1', 'retries2'],
  ...['syn_retries', 'synack_retries', 'base_mss', 'min_tso_segs', 'limit_output_bytes'],
  ...['pacing_ss_ratio', 'pacing_ca_ratio', 'invalid_ratelimit', 'probe_interval', 'probe_threshold'],
]
  .map((name) => `net.ipv4.tcp_${name}`)
  .filter((name) => existsSync(pathOf(name)) && takesLarger(name));
const before = new Map(sysctls.map((name) => [name, value(name)]));
const other = (name: string, step: number) => String(Number(before.get(name)) + step);

/** In place of a cluster: one node. */
const node = {
  metadata: { uid: 'bench', labels: {} as Record<string, string>, annotations: {} as Record<string, string> },
};
const api = createServer((request, response) => {
  let text = '';
  request.on('data', (chunk) => {
    text += chunk;
  });
  request.on('end', () => {
    if (request.method === 'PATCH') {
      const { metadata } = JSON.parse(text);
      for (const key of ['labels', 'annotations'] as const)
        for (const [name, now] of Object.entries(metadata[key] as Record<string, string | null>))
          if (now === null) delete node.metadata[key][name];
          else node.metadata[key][name] = now;
    }
    response.end(JSON.stringify(node));
  });
});
await new Promise<void>((resolve) => api.listen(0, '127.0.0.1', resolve));
const { port } = api.address() as { port: number };

function want(profiles: object): void {
  writeFileSync(`${file}.new`, JSON.stringify({ allow: ['net.ipv4.conf.*'], profiles }));
  renameSync(`${file}.new`, file);
}
const profile = (step: number) => ({
  bench: { sysctls: Object.fromEntries(sysctls.map((name) => [name, other(name, step)])) },
});
let running: ChildProcess | undefined;
function start(): ChildProcess {
  running = spawn(process.execPath, [...flags, program], {
    env: {
      PATH: process.env.PATH,
      CDE_NODE_NAME: 'bench',
      CDE_NODED_API: `http://127.0.0.1:${port}`,
      CDE_NODED_PROFILES: file,
      CDE_NODED_DATA_DIR: join(folder, 'data'),
      CDE_NODED_LISTEN: '127.0.0.1:7092',
    },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return running;
}
async function kill(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGKILL');
  await ended;
}
async function waitFor(check: () => boolean, ms = 1): Promise<number> {
  const began = performance.now();
  while (!check()) await (ms > 1 ? delay(ms) : breathe());
  return performance.now() - began;
}
const isAt = (step: number) => sysctls.every((name) => value(name) === other(name, step));
function percentiles(times: number[]): string {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!.toFixed(1);
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms (${times.length} repairs)`;
}

async function measureRepairs(root: string, step: number): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < repairsEach; round++)
    for (const name of sysctls) {
      writeFileSync(pathOf(name, root), `${other(name, step + 1)}\n`);
      times.push(await waitFor(() => value(name) === other(name, step)));
      await delay(20 + Math.random() * 50);
    }
  return times;
}

/** Another mount of /proc, as in a container: inotify does not see its writes. */
function mountProc(): string | null {
  const root = join(folder, 'proc');
  mkdirSync(root);
  return spawnSync('mount', ['-t', 'proc', 'proc', root]).status === 0 ? join(root, 'sys') : null;
}

async function measureInterfaces(): Promise<number[]> {
  const times: number[] = [];
  for (let index = 0; index < interfaces; index++) {
    execFileSync('ip', ['link', 'add', `bench${index}`, 'type', 'veth', 'peer', 'name', `peer${index}`]);
    times.push(await waitFor(() => value(`net.ipv4.conf.bench${index}.accept_local`) === '1'));
  }
  return times;
}

async function measureIdle(child: ChildProcess): Promise<string> {
  const ticks = () => {
    const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    return Number(fields[11]) + Number(fields[12]);
  };
  await delay(15_000);
  const began = ticks();
  await delay(idleSeconds * 1000);
  const share = (ticks() - began) / 100 / idleSeconds;
  const memory = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]);
  return `${(memory / 1024).toFixed(0)} MB, ${(share * 100).toFixed(2)} % of a core (${idleSeconds} s)`;
}

try {
  console.log(`${sysctls.length} sysctls`);
  want(profile(1));
  let child = start();
  await waitFor(() => isAt(1), 50);
  console.log(`idle: ${await measureIdle(child)}`);
  console.log(
    `repair after a write of the node's own programs: ${percentiles(await measureRepairs('/proc/sys', 1))}`,
  );
  await kill(child);
  const proc = mountProc();
  if (proc) {
    child = start();
    await waitFor(() => node.metadata.annotations['cde.dev/kernel-profiles'] !== undefined, 50);
    await delay(4_000);
    const one = sysctls.slice(0, 12);
    const times: number[] = [];
    for (const name of one) {
      await delay(Math.random() * 2_000);
      writeFileSync(pathOf(name, proc), `${other(name, 2)}\n`);
      times.push(await waitFor(() => value(name) === other(name, 1), 5));
    }
    console.log(`repair after a write through another /proc: ${percentiles(times)}`);
    await kill(child);
  }
  want({ ...profile(1), interfaces: { sysctls: { 'net.ipv4.conf.*.accept_local': 1 } } });
  child = start();
  await waitFor(() => value('net.ipv4.conf.lo.accept_local') === '1', 50);
  console.log(`a new interface has its value: ${percentiles(await measureInterfaces())}`);
  for (let round = 0; round < kills; round++) {
    want(profile(1 + (round % 3)));
    await delay(Math.random() * 1_500);
    await kill(child);
    child = start();
  }
  want({});
  await waitFor(() => readFileSync(join(folder, 'data/originals.json'), 'utf8').includes('"sysctls":{}'), 50);
  const wrong = sysctls.filter((name) => value(name) !== before.get(name));
  console.log(
    `after ${kills} kill -9: ${sysctls.length - wrong.length} of ${sysctls.length} sysctls exactly as before`,
  );
  await kill(child);
  process.exitCode = wrong.length === 0 ? 0 : 1;
} finally {
  running?.kill('SIGKILL');
  spawnSync('umount', [join(folder, 'proc')]);
  rmSync(folder, { recursive: true, force: true });
  api.close();
}
