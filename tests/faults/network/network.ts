import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** Properties of a link, in each direction. Those left out do not change. */
export interface Wire {
  delayMs?: number;
  /** At most this much more, at random; packets overtake each other. */
  jitterMs?: number;
  /** A further delay. */
  extraMs?: number;
  /** 0 to 1. */
  loss?: number;
  /** The rate in each direction; 0: unlimited. */
  megabits?: number;
  /** Drops everything silently. */
  down?: boolean;
  /** The address to and from which packets are lost, dropped or further delayed; null: all. */
  only?: string | null;
}

/** A host in a network namespace, with one link to this machine. */
export interface Host {
  /** The prefix that runs a command on the host. */
  prefix: string[];
  /** Its first address. */
  address: string;
  set(wire: Wire): Promise<void>;
  /** Replaces its address, as when a laptop changes its Wi-Fi. */
  changeAddress(): void;
  /** The processes that run there. */
  pids(): number[];
  /** Runs iptables there. */
  iptables(...words: string[]): void;
  remove(): Promise<void>;
}

/** Why this machine cannot have such hosts; null if it can. */
export function whyNoHosts(): string | null {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  if (process.getuid!() !== 0) return 'network namespaces need root';
  for (const [program, ...words] of [
    ['ip', '-V'],
    ['python3', '-V'],
    ['iptables', '-V'],
  ])
    if (spawnSync(program!, words).status !== 0) return `${program} is not installed`;
  const trial = spawnSync('sh', ['-c', 'test -c /dev/net/tun && unshare -n true']);
  return trial.status === 0 ? null : 'no /dev/net/tun, or no new network namespace';
}

const run = (program: string, ...words: string[]) => execFileSync(program, words, { stdio: 'pipe' });

/** An address of this machine that every host reaches over its own link. */
export function makeAddress(): { address: string; remove(): void } {
  const address = `10.76.${randomInt(256)}.${randomInt(1, 255)}`;
  run('ip', 'addr', 'add', `${address}/32`, 'dev', 'lo');
  return { address, remove: () => void run('ip', 'addr', 'del', `${address}/32`, 'dev', 'lo') };
}

export async function makeHost(): Promise<Host> {
  // Four addresses of 10.77.0.0/16 for each host, because tests run concurrently.
  const number = randomInt(1, 16_000);
  const at = (last: number) => `10.77.${number >> 6}.${((number & 63) << 2) + last}`;
  const name = `cdefault${number}`;
  const [machine, first, second] = [at(1), at(2), at(3)];
  let now = first;
  run('ip', 'netns', 'add', name);
  run('ip', 'netns', 'exec', name, 'ip', 'link', 'set', 'lo', 'up');
  const link: ChildProcess = spawn(
    'python3',
    [fileURLToPath(new URL('link.py', import.meta.url)), name, name, machine, first],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  let waiting: (() => void)[] = [];
  let ready = () => {};
  const isReady = new Promise<void>((resolve, reject) => {
    ready = resolve;
    link.once('exit', (code) => reject(new Error(`link.py ended with ${code}`)));
  });
  link.stdout!.setEncoding('utf8').on('data', (text: string) => {
    for (const line of text.trim().split('\n')) line === 'ok' ? waiting.shift()?.() : ready();
  });
  await isReady;
  const route = () => run('ip', 'netns', 'exec', name, 'ip', 'route', 'replace', 'default', 'dev', 'wan');
  route();
  const pids = () =>
    run('ip', 'netns', 'pids', name).toString().trim().split('\n').filter(Boolean).map(Number);
  return {
    pids,
    prefix: ['ip', 'netns', 'exec', name],
    address: first,
    async set(wire) {
      const done = new Promise<void>((resolve) => waiting.push(resolve));
      link.stdin!.write(`${JSON.stringify(wire)}\n`);
      await done;
    },
    changeAddress() {
      const next = now === first ? second : first;
      run('ip', 'netns', 'exec', name, 'ip', 'addr', 'flush', 'dev', 'wan');
      run('ip', 'netns', 'exec', name, 'ip', 'addr', 'add', next, 'peer', machine, 'dev', 'wan');
      run('ip', 'route', 'replace', `${next}/32`, 'dev', name);
      route();
      now = next;
    },
    iptables: (...words) => void run('ip', 'netns', 'exec', name, 'iptables', ...words),
    async remove() {
      waiting = [];
      // Processes on it, such as the background process of cde, end with it.
      for (const pid of pids()) process.kill(pid, 'SIGKILL');
      link.stdin!.end();
      if (link.exitCode === null) await once(link, 'exit');
      run('ip', 'netns', 'del', name);
    },
  };
}
