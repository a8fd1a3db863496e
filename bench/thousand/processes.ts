import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Told } from './agents.ts';
import type { Measured } from './meter.ts';
import type { Took } from './plain.ts';

const fileOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;

/** The next message that holds `key`; rejects when the child ends first. */
function next<T>(child: ChildProcess, key: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: Record<string, unknown>) => {
      if (!(key in message) && !('failed' in message)) return;
      done();
      if ('failed' in message) reject(new Error(String(message.failed)));
      else resolve(message[key] as T);
    };
    const onExit = () => {
      done();
      reject(new Error(`a process ended before it said ${key}`));
    };
    function done() {
      child.off('message', onMessage);
      child.off('exit', onExit);
    }
    child.on('message', onMessage);
    child.on('exit', onExit);
  });
}

export async function end(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (hasEnded(child)) return;
  const gone = once(child, 'exit');
  child.kill(signal);
  await gone;
}

export interface MeteredServer {
  child: ChildProcess;
  begin(profile?: string): Promise<void>;
  measured(): Promise<Measured>;
}

/** The server's own program with a meter in it; resolves once it is ready. */
export async function startServer(env: Record<string, string>, api: string): Promise<MeteredServer> {
  const child = fork(fileOf('../../server/main.ts'), [], {
    env: { ...process.env, ...env, CDE_BENCH_API: api },
    execArgv: ['--import', fileOf('meter.ts')],
  });
  await next(child, 'type');
  return {
    child,
    begin(profile) {
      const begun = next<void>(child, 'begun');
      child.send({ meter: 'begin', ...(profile && { profile }) });
      return begun;
    },
    measured() {
      const answer = next<Measured>(child, 'measured');
      child.send({ meter: 'end' });
      return answer;
    },
  };
}

export interface Agents {
  /** Of all processes together. */
  told(): Told;
  end(): Promise<void>;
}

/** Processes that play the agents of all pods in namespaces that begin with `prefix`. */
export function startAgents(kubeconfig: string, prefix: string, processes = 2): Agents {
  const last: Told[] = [];
  const children = Array.from({ length: processes }, (_, index) => {
    const child = fork(fileOf('agents.ts'), [kubeconfig, prefix, `${index}/${processes}`]);
    child.on('message', ({ told }: { told: Told }) => {
      last[index] = told;
    });
    return child;
  });
  const sum = (key: keyof Told) => last.reduce((total, told) => total + (told?.[key] ?? 0), 0);
  const latest = (key: keyof Told) => last.reduce((most, told) => Math.max(most, told?.[key] ?? 0), 0);
  return {
    told: () => ({
      running: sum('running'),
      runningAt: latest('runningAt'),
      registered: sum('registered'),
      connected: sum('connected'),
      connectedAt: latest('connectedAt'),
    }),
    async end() {
      await Promise.all(children.map((child) => end(child, 'SIGKILL')));
    },
  };
}

export interface Plain {
  create(count: number): Promise<Took>;
  stop(): Promise<Took>;
  remove(): Promise<Took>;
  end(): Promise<void>;
}

/** The baseline, in a process of its own. */
export function startPlain(kubeconfig: string, nodes: string, atOnce: number): Plain {
  const child = fork(fileOf('plain.ts'), [kubeconfig, nodes, String(atOnce)]);
  const ask = (what: object) => {
    if (hasEnded(child)) return Promise.reject(new Error('the baseline has ended'));
    const took = next<Took>(child, 'took');
    child.send(what);
    return took;
  };
  return {
    create: (count) => ask({ create: count }),
    stop: () => ask({ stop: true }),
    remove: () => ask({ remove: true }),
    end: () => end(child),
  };
}
