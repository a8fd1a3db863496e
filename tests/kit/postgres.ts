import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type EmbeddedPostgres, startEmbedded } from '@cde/server/database/embedded.ts';
import { until } from './until.ts';

/** A PostgreSQL for one test, which can fail in every way that happens in production. */
export interface OwnDatabase {
  /** The same over all its lives. */
  url: string;
  start(): Promise<void>;
  /** As an administrator does it: everybody is disconnected. */
  stop(): Promise<void>;
  /** kill -9 of all its processes. */
  kill(): Promise<void>;
  /** Its processes stand still: connections stay open, and nobody answers. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
}

export async function makeDatabase(folder: string): Promise<OwnDatabase> {
  const start = () => startEmbedded(folder, { fsync: 'off' });
  let life: EmbeddedPostgres = await start();
  const pids = () => postgresProcesses(join(folder, 'postgres', 'data'));
  const tell = async (signal: NodeJS.Signals) => {
    for (const pid of await pids())
      try {
        process.kill(pid, signal);
      } catch {
        // It has ended meanwhile.
      }
  };
  return {
    url: life.url,
    async start() {
      life = await start();
    },
    stop: () => life.stop(),
    async kill() {
      await tell('SIGKILL');
      await until(pids, (left) => left.length === 0);
    },
    // Twice, for processes that were created between the listing and the signal.
    async freeze() {
      await tell('SIGSTOP');
      await tell('SIGSTOP');
    },
    thaw: () => tell('SIGCONT'),
  };
}

/** The postmaster of a data directory and its children, the postmaster first; empty when it does not run. */
export async function postgresProcesses(data: string): Promise<number[]> {
  const main = Number((await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')[0]);
  const found: number[] = [];
  for (const name of main ? await readdir('/proc') : []) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (state === 'Z' || state === undefined) continue;
    if (Number(name) === main) {
      const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
      if (line.includes(data)) found.unshift(main);
    } else if (Number(parent) === main) found.push(Number(name));
  }
  return found;
}
