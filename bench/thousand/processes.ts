import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { AgentCounts } from './agents.ts';
import type { Measured } from './meter.ts';
import type { Durations } from './plain.ts';

const fileOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;

/** The next message that has `key`. Rejects if the child exits first. */
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
      reject(new Error(`a process exited before it sent ${key}`));
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

/** Starts the server's program with the meter loaded. Resolves once the server is ready. */
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
  /** The sum over all processes. */
  counts(): AgentCounts;
  end(): Promise<void>;
}

/** Starts the processes that run the agents of all pods in namespaces with `prefix`. */
export function startAgents(kubeconfig: string, prefix: string, processes = 2): Agents {
  const last: AgentCounts[] = [];
  const children = Array.from({ length: processes }, (_, index) => {
    const child = fork(fileOf('agents.ts'), [kubeconfig, prefix, `${index}/${processes}`]);
    child.on('message', ({ counts }: { counts: AgentCounts }) => {
      last[index] = counts;
    });
    return child;
  });
  const sum = (key: keyof AgentCounts) => last.reduce((total, counts) => total + (counts?.[key] ?? 0), 0);
  const latest = (key: keyof AgentCounts) =>
    last.reduce((most, counts) => Math.max(most, counts?.[key] ?? 0), 0);
  return {
    counts: () => ({
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
  create(count: number): Promise<Durations>;
  stop(): Promise<Durations>;
  remove(): Promise<Durations>;
  end(): Promise<void>;
}

/** Starts the baseline in a separate process. */
export function startPlain(kubeconfig: string, nodes: string, concurrency: number): Plain {
  const child = fork(fileOf('plain.ts'), [kubeconfig, nodes, String(concurrency)]);
  const ask = (what: object) => {
    if (hasEnded(child)) return Promise.reject(new Error('the baseline has ended'));
    const took = next<Durations>(child, 'took');
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
