import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Entries, type Entry, isEntry, isSafePath } from '@cde/filesync/entries.ts';
import { configDir } from '../config/config.ts';
import { writeAtomically } from '../config/files.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';

/** The two folders that are synced. */
export interface Pair {
  server: string;
  workspaceId: string;
  /** As the user named it; only for display. */
  workspace: string;
  /** In the workspace, relative to the home or absolute. */
  remote: string;
  /** On this machine, without links. */
  local: string;
}

interface StoredPair extends Pair {
  version: 1;
  settledAt: string | null;
  base: [string, Entry][];
}

const folderOf = (env: NodeJS.ProcessEnv) => join(configDir(env), 'sync');
/** The longest path of a Unix socket on all systems. */
const maxSocketPathBytes = 100;

const idOf = ({ server, workspaceId, remote, local }: Pair) =>
  createHash('sha256').update([server, workspaceId, remote, local].join('\0')).digest('hex').slice(0, 20);

/** What is stored between two runs: the state of both sides when they last agreed. */
export function openState(env: NodeJS.ProcessEnv, pair: Pair) {
  const folder = folderOf(env);
  const file = join(folder, `${idOf(pair)}.json`);
  return {
    /** Empty when there is none, or one that cannot be used: then nothing is deleted, and what differs stays twice. */
    read(): Entries {
      const kept = readStoredPair(file);
      const base: Entries = new Map();
      for (const [path, entry] of kept?.base ?? [])
        if (isSafePath(path) && isEntry(path, entry)) base.set(path, entry);
      return base;
    },
    save(base: Entries, settledAt: Date | null): void {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      const kept: StoredPair = {
        version: 1,
        ...pair,
        settledAt: settledAt?.toISOString() ?? null,
        base: [...base],
      };
      writeAtomically(file, JSON.stringify(kept), 0o600);
    },
  };
}

function readStoredPair(file: string): StoredPair | null {
  try {
    const kept = JSON.parse(readFileSync(file, 'utf8')) as StoredPair;
    return kept.version === 1 && Array.isArray(kept.base) ? kept : null;
  } catch {
    return null;
  }
}

/** Where the process that syncs this pair listens. Only the user can write there. */
function socketPath(env: NodeJS.ProcessEnv, id: string): string {
  const own = join(folderOf(env), `${id}.sock`);
  if (Buffer.byteLength(own) <= maxSocketPathBytes) return own;
  const folder = join(tmpdir(), `cde-sync-${userInfo().uid}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { mode, uid } = lstatSync(folder);
  if ((mode & 0o170077) !== 0o040000 || (process.getuid && uid !== process.getuid()))
    throw new Failure('file-locked', `${folder} is not a folder of yours alone.`, { hint: 'Remove it.' });
  return join(folder, `${id}.sock`);
}

/** What a syncing process reports about itself. */
export interface Status {
  pid: number;
  state: 'connecting' | 'syncing' | 'settled';
  files: number;
  problems: number;
}

/** Asks the process that syncs a pair; null if there is none. */
async function ask(path: string): Promise<Status | null> {
  const socket = createConnection(path);
  socket.setTimeout(2_000, () => socket.destroy());
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  try {
    await once(socket, 'close');
    return JSON.parse(text) as Status;
  } catch {
    return null;
  } finally {
    socket.destroy();
  }
}

/**
 * Takes the pair for this process, until `release` or its end. Rejects with `sync-running` when another has it.
 */
export async function lockPair(
  env: NodeJS.ProcessEnv,
  pair: Pair,
  status: () => Status,
): Promise<{ release(): void }> {
  mkdirSync(folderOf(env), { recursive: true, mode: 0o700 });
  const path = socketPath(env, idOf(pair));
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.end(JSON.stringify(status()));
    });
    try {
      server.listen(path);
      await once(server, 'listening');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
      const before = statSync(path, { throwIfNoEntry: false })?.ino;
      if (await isAlive(path)) throw await running(pair, path);
      // Left by a process that was killed, unless another has taken its place meanwhile, and begins to listen.
      if (attempt > 0 && statSync(path, { throwIfNoEntry: false })?.ino === before)
        rmSync(path, { force: true });
      else await delay(50);
      continue;
    }
    server.unref();
    const { ino } = statSync(path);
    const isOurs = () => statSync(path, { throwIfNoEntry: false })?.ino === ino;
    // Two that have found the same leftover at once: the later one has it.
    await new Promise(setImmediate);
    if (!isOurs()) {
      server.close();
      continue;
    }
    return {
      release() {
        if (isOurs()) rmSync(path, { force: true });
        server.close();
      },
    };
  }
  throw await running(pair, path);
}

/** Whether a process listens there, even a suspended one. */
async function isAlive(path: string): Promise<boolean> {
  const socket = createConnection(path);
  try {
    await once(socket, 'connect');
    return true;
  } catch (error) {
    return !['ECONNREFUSED', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '');
  } finally {
    socket.destroy();
  }
}

async function running(pair: Pair, path: string): Promise<Failure> {
  const status = await ask(path);
  return new Failure(
    'sync-running',
    `${pair.local} and ${pair.workspace}:${pair.remote} are kept in step already.`,
    {
      exitCode: exitCodes.conflict,
      detail: status ? `By process ${status.pid}.` : undefined,
      hint: 'End that one first (Ctrl-C), or let it do its work: cde sync --list',
    },
  );
}

/** All pairs that were ever synced, with the process that syncs them now. */
export async function listPairs(
  env: NodeJS.ProcessEnv,
): Promise<(Pair & { settledAt: string | null; running: Status | null })[]> {
  let names: string[] = [];
  try {
    names = readdirSync(folderOf(env)).filter((name) => name.endsWith('.json'));
  } catch {
    // Nothing has been synced yet.
  }
  const pairs = names.sort().flatMap((name) => {
    const kept = readStoredPair(join(folderOf(env), name));
    return kept ? [kept] : [];
  });
  return Promise.all(
    pairs.map(async ({ server, workspaceId, workspace, remote, local, settledAt }) => {
      const pair = { server, workspaceId, workspace, remote, local };
      return { ...pair, settledAt, running: await ask(socketPath(env, idOf(pair))) };
    }),
  );
}
