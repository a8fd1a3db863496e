import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, readdir, readlink, symlink, unlink } from 'node:fs/promises';
import { join } from 'node:path';

/** uids that no distribution assigns: above systemd's container range, below 2^31. */
const preferred = { from: 1_900_000_000, count: 100_000_000 };
/** For containers whose user namespace has 65,536 uids: the range that Debian reserves. */
const small = { from: 50_000, count: 9_999 };

function poolOf(uidMap: string): { from: number; count: number } | null {
  for (const pool of [preferred, small]) {
    for (const line of uidMap.split('\n')) {
      const [inside, , count] = line.trim().split(/\s+/).map(Number);
      if (inside! <= pool.from && inside! + count! >= pool.from + pool.count) return pool;
    }
  }
  return null;
}

/** The uid for trying an isolation level; null if this process cannot change the owner of files. */
export function trialUid(): number | null {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return null;
  return poolOf(readFileSync('/proc/self/uid_map', 'utf8'))?.from ?? null;
}

export interface Uids {
  /** The host uid (and gid) of a workspace, kept until `release`. Null unless we are root. */
  of(workspaceId: string): Promise<number | null>;
  release(workspaceId: string): Promise<void>;
}

/**
 * Where a server begins to search. Another server on this machine does not know its claims, and their workspaces must
 * not share a uid, because process limits count per uid on the whole machine.
 */
const offsetOf = (directory: string, count: number): number =>
  createHash('sha256').update(directory).digest().readUInt32BE() % count;

/**
 * Assigns each workspace its own unprivileged host uid, so that file permissions protect the machine and its neighbours
 * even if every namespace failed. A claim consists of two symlinks, UID → workspace and workspace → UID. Creating one
 * is atomic and fails if it exists, so two servers cannot assign a uid twice, or two uids to one workspace.
 */
export function makeUids({ directory }: { directory: string }): Uids {
  const pool =
    process.platform === 'linux' && process.getuid?.() === 0
      ? poolOf(readFileSync('/proc/self/uid_map', 'utf8'))
      : null;
  const read = async (name: string) => {
    try {
      return await readlink(join(directory, name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
  };
  const claim = async (name: string, value: string) => {
    try {
      await symlink(value, join(directory, name));
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    }
  };
  const drop = async (name: string) => unlink(join(directory, name)).catch(() => {});

  return {
    async of(workspaceId) {
      if (!pool) return null;
      const known = await read(workspaceId);
      if (known) return Number(known);
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const taken = new Set(await readdir(directory));
      // The first is the trial's.
      const usable = pool.count - 1;
      const first = offsetOf(directory, usable);
      for (let tried = 0; tried < usable; tried++) {
        const uid = pool.from + 1 + ((first + tried) % usable);
        if (taken.has(String(uid)) || !(await claim(String(uid), workspaceId))) continue;
        if (await claim(workspaceId, String(uid))) return uid;
        await drop(String(uid));
        return Number(await read(workspaceId));
      }
      throw new Error(`no uid is left between ${pool.from} and ${pool.from + pool.count}`);
    },
    async release(workspaceId) {
      const uid = await read(workspaceId).catch(() => null);
      await drop(workspaceId);
      if (uid) await drop(uid);
    },
  };
}
