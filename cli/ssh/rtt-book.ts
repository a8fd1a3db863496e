import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { outgoingAddresses } from '@cde/tunnel/network/ways-out.ts';
import type { RttCache } from '@cde/tunnel/selection/measure.ts';
import { configDir } from '../config/config.ts';
import { writeAtomically } from '../config/files.ts';

/** How long a round trip to a satellite holds good: for the commands of the next minutes. */
const entryLifetimeMs = 5 * 60_000;
/** A laptop visits many networks, and the file must not grow with each. */
const maxNetworks = 8;
/** Between two writes by one process. */
const writeEveryMs = 10_000;

interface Entry {
  ms: number;
  at: number;
}
type Networks = Record<string, Record<string, Entry>>;

/**
 * The round trips to satellites that commands have measured, in a file beside the configuration, for each network by
 * itself: another command of the next minutes need not measure. A file that cannot be read or written only costs that.
 */
export function makeRttBook(env: NodeJS.ProcessEnv, now: () => number = Date.now): RttCache {
  const file = join(configDir(env), 'satellites.json');
  /** What this process knows, by network: one that runs for hours sees several. */
  const known: Networks = {};
  const here = (): Record<string, Entry> => {
    const network = networkName();
    known[network] ??= read()[network] ?? {};
    return known[network];
  };
  let dirty = false;
  let writtenAt = Number.NEGATIVE_INFINITY;

  function read(): Networks {
    try {
      const networks = JSON.parse(readFileSync(file, 'utf8')) as Networks;
      return typeof networks === 'object' && networks !== null ? networks : {};
    } catch {
      return {};
    }
  }

  function write(): void {
    if (!dirty) return;
    dirty = false;
    writtenAt = now();
    try {
      const all = { ...read() };
      for (const [network, entries] of Object.entries(known)) all[network] = { ...all[network], ...entries };
      const newest = (entries: Record<string, Entry>) =>
        Math.max(...Object.values(entries).map(({ at }) => at));
      const kept = Object.entries(all)
        .map(([name, entries]) => [name, fresh(entries)] as const)
        .filter(([, entries]) => Object.keys(entries).length > 0)
        .sort(([, one], [, other]) => newest(other) - newest(one))
        .slice(0, maxNetworks);
      mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
      writeAtomically(file, JSON.stringify(Object.fromEntries(kept)), 0o600);
    } catch {
      // A read-only home: every command measures for itself.
    }
  }

  function fresh(entries: Record<string, Entry>): Record<string, Entry> {
    return Object.fromEntries(
      Object.entries(entries).filter(([, { at }]) => at <= now() && now() - at < entryLifetimeMs),
    );
  }

  process.once('exit', write);
  return {
    get: (url) => fresh(here())[url]?.ms,
    put(url, ms) {
      here()[url] = { ms: Math.round(ms * 100) / 100, at: now() };
      dirty = true;
      if (now() - writtenAt > writeEveryMs) write();
    },
  };
}

let shared: { file: string; book: RttCache } | undefined;

/** The one of this process. */
export function rttBook(env: NodeJS.ProcessEnv): RttCache {
  const file = join(configDir(env), 'satellites.json');
  if (shared?.file !== file) shared = { file, book: makeRttBook(env) };
  return shared.book;
}

/** By its addresses this machine knows the network again; no name of them is kept. */
function networkName(): string {
  return createHash('sha256').update(outgoingAddresses().sort().join(' ')).digest('hex').slice(0, 16);
}
