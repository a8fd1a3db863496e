import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { sessionKeyHeader } from '@cde/api/identity.ts';
import { startEmbedded } from '@cde/server/database/embedded.ts';
import { type Host, makeHost } from '../../tests/faults/network/network.ts';
import { agentPids } from '../../tests/kit/api.ts';
import { cde, makeMachine } from '../../tests/kit/machine.ts';

/** Everything of one lane: a server with its database, a satellite, two workspaces, and a laptop, each on its own link. */
export type Rig = Awaited<ReturnType<typeof makeRig>>;

const root = fileURLToPath(new URL('../../', import.meta.url));
const node = join(root, 'node_modules/.bin/node');
const ports = { server: 7080, satellite: 7090 };
/** As of the lane: they are the only ones in its network. */
const regions = { own: 'lab', embedded: 'home' } as const;
type SatelliteChoice = keyof typeof regions;

const run = (program: string, ...words: string[]) =>
  execFileSync(program, words, { stdio: 'pipe' }).toString();
const kill = (pid: number, signal: NodeJS.Signals) => {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
};

/** Tries until it succeeds. What takes longer is broken. */
export async function retry<T>(
  what: string,
  attempt: () => Promise<T | null | undefined | false>,
): Promise<T> {
  let last: unknown = 'no result';
  for (const until = Date.now() + 90_000; Date.now() < until; await delay(200)) {
    try {
      const value = await attempt();
      if (value) return value;
    } catch (error) {
      last = error;
    }
  }
  throw new Error(`${what}: ${last instanceof Error ? last.message : last}`);
}

/** The children of a process. Theirs may be agents, which outlive a server. */
function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return text.split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

export async function makeRig() {
  for (const words of [
    'ip link set lo up',
    'sysctl -qw net.ipv4.ip_forward=1',
    'mkdir -p /run/netns',
    'mount -t tmpfs none /run/netns',
  ])
    run('sh', '-c', words);
  const hosts = { laptop: await makeHost(), satellite: await makeHost(), server: await makeHost() };
  // `ip netns exec` hides the control groups.
  const on = (host: Host) => ['nsenter', `--net=/run/netns/${host.prefix.at(-1)}`];
  const url = `http://${hosts.server.address}:${ports.server}`;
  const machine = await makeMachine({
    CDE_LISTEN: `${hosts.server.address}:${ports.server}`,
    CDE_LOCAL_PROVIDER: 'on',
    CDE_LOCAL_NETWORK: 'shared',
    CDE_REGION: regions.embedded,
  });
  const { folder, env } = machine;
  await mkdir(env.HOME!, { recursive: true });
  const postgres = await startEmbedded(join(folder, 'database'), { fsync: 'off' });
  env.DATABASE_URL = postgres.url;

  function start(host: Host, words: string[], more: NodeJS.ProcessEnv = {}) {
    const [program, ...args] = [...on(host), node, cde, ...words];
    const child = spawn(program!, args, {
      env: { ...env, ...more },
      cwd: folder,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let text = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk) => {
        text += chunk;
      });
    child.stdin.on('error', () => {});
    return { child, output: () => text.slice(-5_000), text: () => text };
  }
  const says = (one: ReturnType<typeof start>, words: string) =>
    retry(`waiting for ${JSON.stringify(words)}`, async () => {
      if (one.child.exitCode !== null)
        throw new Error(`it ended with ${one.child.exitCode}: ${one.output()}`);
      return one.text().includes(words);
    });
  async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    // The CLI passes on what asks it to stop, and ends with its child.
    for (const pid of signal === 'SIGKILL' ? childrenOf(child.pid!) : [child.pid!]) kill(pid, signal);
    await ended;
  }

  let server: ReturnType<typeof start> | undefined;
  let satellite: ReturnType<typeof start> | undefined;
  let satelliteToken = '';
  async function startServer(): Promise<void> {
    server = start(hosts.server, ['server', 'start']);
    await says(server, 'Ctrl-C stops the server');
  }
  async function startSatellite(): Promise<void> {
    satellite = start(
      hosts.satellite,
      ['satellite', 'start', '--server', url, '--listen', `${hosts.satellite.address}:${ports.satellite}`],
      { CDE_SATELLITE_TOKEN: satelliteToken, CDE_LOG_LEVEL: 'info' },
    );
    await says(satellite, 'satellite is registered');
  }
  /** The server's or satellite's own processes, without the CLI that started them. */
  const inner = (one: ReturnType<typeof start> | undefined) =>
    one?.child.pid ? childrenOf(one.child.pid) : [];

  await startServer();
  const { servers } = JSON.parse(await readFile(join(env.CDE_CONFIG_DIR!, 'config.json'), 'utf8'));
  const admin: string = servers[url].token;

  async function call(
    token: string,
    method: string,
    path: string,
    body?: unknown,
    browser?: { cookie: string; key: string },
  ) {
    const reply = await fetch(url + path, {
      method,
      headers: {
        ...(browser
          ? { cookie: browser.cookie, [sessionKeyHeader]: browser.key, origin: url }
          : { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(5_000),
    });
    const text = await reply.text();
    if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${text.slice(0, 300)}`);
    return { headers: reply.headers, body: text === '' ? undefined : JSON.parse(text) };
  }
  async function mustRun(...words: string[]): Promise<string> {
    const ran = await machine.cde(...words);
    if (ran.code !== 0) throw new Error(`cde ${words.join(' ')}: ${ran.stderr}`);
    return ran.stdout.trim();
  }

  satelliteToken = await mustRun('satellite', 'add', 'own', '--region', regions.own);
  await startSatellite();
  const password = 'correct horse battery staple';
  await call(admin, 'POST', '/api/v1/users', { username: 'dev', role: 'member', password });
  const signedIn = await call('', 'POST', '/api/v1/auth/sign-in', { username: 'dev', password });
  const cookie = signedIn.headers
    .getSetCookie()
    .map((each) => each.split(';')[0])
    .join('; ');
  const { body: made } = await call(
    '',
    'POST',
    '/api/v1/tokens',
    { name: 'laptop' },
    { cookie, key: signedIn.body.sessionKey },
  );
  const dev: string = made.token;

  const ids = {} as Record<SatelliteChoice, string>;
  for (const place of ['own', 'embedded'] as const) {
    const template = join(folder, `template-${place}`);
    await mkdir(template);
    await writeFile(
      join(template, 'template.yaml'),
      [
        `name: ${place}`,
        'provider: local',
        'local: {memory: 1Gi, cpus: 2}',
        `connection: {regions: [${regions[place]}], paths: [relay, direct-udp]}`,
        '',
      ].join('\n'),
    );
    await mustRun('template', 'push', template);
    await mustRun('create', place, '--template', place, '--owner', 'dev');
    ids[place] = JSON.parse(await mustRun('show', `dev/${place}`, '--json')).id;
  }

  /** A control group of version 1 for CPU time. The lane sees its own as the root. */
  function group(name: string): string {
    const path = `/sys/fs/cgroup/cpu/${name}`;
    mkdirSync(path, { recursive: true });
    return path;
  }
  const burners = new Set<ChildProcess>();

  const rig = {
    ...{ hosts, folder, env, ids, dev, admin, url, ports, postgres, node, cde },
    on,
    start,
    call,
    machine,
    startServer,
    startSatellite,
    endServer: (signal: NodeJS.Signals) => end(server?.child, signal),
    endSatellite: (signal: NodeJS.Signals) => end(satellite?.child, signal),
    serverPids: () => inner(server),
    satellitePids: () => inner(satellite),
    agentPids: (place: SatelliteChoice) => agentPids(ids[place]),
    workspaceGroup: (place: SatelliteChoice, controller: 'cpu' | 'memory') =>
      `/sys/fs/cgroup/${controller}/cde/${ids[place]}`,
    signal: (pids: number[], name: NodeJS.Signals) => {
      for (const pid of pids) kill(pid, name);
    },

    /** Holds processes, and busy loops beside them, to this share of one CPU; returns what ends it. */
    starve(given: number[] | string, cpuPercent: number): () => void {
      const path = typeof given === 'string' ? given : group('starved');
      const write = (file: string, value: number | string) => writeFileSync(join(path, file), String(value));
      const before = readFileSync(join(path, 'cpu.cfs_quota_us'), 'utf8').trim();
      const move = (pid: number, to: string) => {
        try {
          writeFileSync(join(to, 'cgroup.procs'), String(pid));
        } catch {
          // It has ended.
        }
      };
      if (typeof given !== 'string') for (const pid of given) move(pid, path);
      const loops = [1, 2].map(() => spawn('sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' }));
      for (const loop of loops) {
        burners.add(loop);
        move(loop.pid!, path);
      }
      write('cpu.cfs_period_us', 100_000);
      write('cpu.cfs_quota_us', Math.max(1_000, Math.round(cpuPercent * 1_000)));
      return () => {
        write('cpu.cfs_quota_us', before);
        for (const loop of loops) loop.kill('SIGKILL');
        if (typeof given !== 'string') for (const pid of given) move(pid, '/sys/fs/cgroup/cpu');
      };
    },
    /** A program that uses what CPU time others leave. */
    load(): () => void {
      const loop = spawn('nice', ['-n', '19', 'sh', '-c', 'while :; do :; done'], { stdio: 'ignore' });
      burners.add(loop);
      return () => void loop.kill('SIGKILL');
    },

    /** Everything works again, whatever the last case broke. */
    async repair(): Promise<void> {
      for (const loop of burners) loop.kill('SIGKILL');
      burners.clear();
      run('iptables', '-F');
      run('iptables', '-t', 'nat', '-F');
      for (const host of Object.values(hosts))
        await host.set({
          delayMs: 0,
          jitterMs: 0,
          extraMs: 0,
          loss: 0,
          down: false,
          megabits: 0,
          only: null,
        });
      rig.signal(rig.serverPids(), 'SIGCONT');
      if (!server || server.child.exitCode !== null || server.child.signalCode !== null) await startServer();
      if (!satellite || satellite.child.exitCode !== null || satellite.child.signalCode !== null)
        await startSatellite();
      await retry('the server answers', async () => call(admin, 'GET', '/api/v1/users/me'));
      await call(admin, 'PATCH', '/api/v1/users/dev', { status: 'active' });
      for (const place of ['own', 'embedded'] as const)
        await retry(`dev/${place} runs`, async () => {
          const { body } = await call(dev, 'GET', `/api/v1/workspaces/${ids[place]}`);
          if (body.status === 'running' && body.agent?.connected !== false) return true;
          if (['stopped', 'failed'].includes(body.status)) await machine.cde('start', `dev/${place}`);
          return false;
        });
    },
    async remove(): Promise<void> {
      for (const loop of burners) loop.kill('SIGKILL');
      await end(satellite?.child, 'SIGKILL');
      await end(server?.child, 'SIGKILL');
      for (const host of Object.values(hosts)) await host.remove().catch(() => {});
      await postgres.stop().catch(() => {});
      await machine.remove().catch(() => {});
    },
  };
  return rig;
}
