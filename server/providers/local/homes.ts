import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  chmod,
  lchown,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type DeliveredFiles, deliverSkeleton } from '../prepare/skeleton.ts';
import type { PurgeSelection } from '../provider.ts';

const run = promisify(execFile);
const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code;

export interface Homes {
  path(workspaceId: string): string;
  /**
   * Creates the home if necessary, and adds skeleton files that it has never had. `uid`: the owner of everything in it
   * (null: unchanged). Slow if a large home changes its owner.
   */
  ensure(workspaceId: string, uid: number | null): Promise<{ created: boolean; added: string[] }>;
  /** Moves the home out of use atomically: kept for `purge`, or marked for deletion. False if there was none. */
  retain(workspaceId: string, disposition: 'keep' | 'doom', now: Date): Promise<boolean>;
  /** Whether a home of the workspace is set aside and not marked for deletion. */
  isRetained(workspaceId: string): Promise<boolean>;
  /** Makes the home that was set aside for `from` the home of `to`, atomically. False if neither has one. */
  restore(from: string, to: string): Promise<boolean>;
  /** Undoes a restore: the home of `to`, if there is one, is retained as that of `from` again. */
  giveBack(from: string, to: string, now: Date): Promise<void>;
  /** Deletes the homes marked for deletion. */
  finishDelete(workspaceId: string): Promise<void>;
  /** Deletes the selected retained homes, and resumes interrupted deletions. Returns the workspace ids. */
  purge(selection: PurgeSelection): Promise<string[]>;
  /** Whether anything of the workspace is left. */
  exists(workspaceId: string): Promise<boolean>;
  /** All homes, in use or retained, without those marked for deletion. `name`: the path below the directory. */
  list(): Promise<{ name: string; workspaceId: string; createdAt: Date }[]>;
  /** Retains a home that `list` returned as that of the workspace. False if it is not there. */
  adopt(name: string, workspaceId: string, retainedAt: Date): Promise<boolean>;
}

/**
 * DIRECTORY/ID               a home
 * DIRECTORY/.set-aside/ID.MS a home out of use since then; with .doomed, being deleted
 * DIRECTORY/.delivered/ID    which skeleton files the home was given, with their hashes
 * DIRECTORY/.staging         files on their way into a home
 * A home only ever moves by rename, and is deleted only under a doomed name: being killed loses nothing.
 */
export function makeHomes({
  directory,
  skeleton = '/etc/skel',
}: {
  directory: string;
  skeleton?: string;
}): Homes {
  const path = (workspaceId: string) => join(directory, workspaceId);
  const asideFolder = '.set-aside';
  const asides = join(directory, asideFolder);
  const delivered = (workspaceId: string) => join(directory, '.delivered', workspaceId);
  const staging = join(directory, '.staging');
  const missing = (error: unknown) => {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  };

  /** The server may be root while the home belongs to a user, so deliverSkeleton follows no links in it. */
  async function deliver(workspaceId: string, uid: number | null, created: boolean): Promise<string[]> {
    const list = delivered(workspaceId);
    const before = created
      ? {}
      : (JSON.parse((await readFile(list, 'utf8').catch(missing)) || '{}') as DeliveredFiles);
    const result = await deliverSkeleton({
      skeleton,
      home: path(workspaceId),
      staging,
      owner: uid === null ? null : { uid, gid: uid },
      delivered: before,
    });
    if (JSON.stringify(result.delivered) !== JSON.stringify(before)) {
      const staged = join(staging, randomUUID());
      try {
        await writeFile(staged, JSON.stringify(result.delivered));
        await rename(staged, list);
      } finally {
        await rm(staged, { force: true });
      }
    }
    return result.added;
  }

  /** The content first and the home itself last, so that its owner shows whether the work is complete. */
  async function giveTo(home: string, uid: number): Promise<void> {
    await run('find', [
      home,
      '-xdev',
      '-mindepth',
      '1',
      '!',
      '-uid',
      String(uid),
      '-exec',
      'chown',
      '-h',
      `${uid}:${uid}`,
      '{}',
      '+',
    ]);
    await lchown(home, uid, uid);
  }

  async function destroy(folder: string): Promise<void> {
    try {
      await rm(folder, { recursive: true, force: true });
    } catch (error) {
      if (codeOf(error) !== 'EACCES' && codeOf(error) !== 'EPERM') throw error;
      // Even their owner cannot empty read-only folders, such as Go's module cache.
      await run('chmod', ['-R', 'u+rwX', folder]);
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** False if the folder is not there: another replica may have moved it just now. */
  async function move(from: string, to: string): Promise<boolean> {
    try {
      // A read-only folder cannot be moved to another parent.
      await chmod(from, 0o700);
      await rename(from, to);
      return true;
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
      return false;
    }
  }

  const asideNames = async () => (await readdir(asides).catch(missing)) ?? [];
  const parse = (name: string) => /^(.+)\.(\d+)(\.doomed)?$/.exec(name);

  return {
    path,
    async ensure(workspaceId, uid) {
      for (const folder of [directory, asides, join(directory, '.delivered'), staging]) {
        await mkdir(folder, { recursive: true, mode: 0o700 });
      }
      const home = path(workspaceId);
      const created = await mkdir(home, { mode: 0o700 }).then(
        () => true,
        (error) => (codeOf(error) === 'EEXIST' ? false : Promise.reject(error)),
      );
      const added = await deliver(workspaceId, uid, created);
      const owner = uid ?? process.getuid?.() ?? null;
      if (owner !== null && (await stat(home)).uid !== owner && process.getuid?.() === 0)
        await giveTo(home, owner);
      return { created, added };
    },
    async retain(workspaceId, disposition, now) {
      const home = path(workspaceId);
      if (!(await lstat(home).catch(missing))) return false;
      await mkdir(asides, { recursive: true, mode: 0o700 });
      const name = `${workspaceId}.${now.getTime()}${disposition === 'doom' ? '.doomed' : ''}`;
      if (!(await move(home, join(asides, name)))) return false;
      await unlink(delivered(workspaceId)).catch(missing);
      return true;
    },
    async isRetained(workspaceId) {
      return (await asideNames()).some((name) => parse(name)?.[1] === workspaceId && !parse(name)?.[3]);
    },
    async restore(from, to) {
      if (await lstat(path(to)).catch(missing)) return true;
      // The newest one, if there are several.
      const name = (await asideNames())
        .filter((each) => parse(each)?.[1] === from && !parse(each)?.[3])
        .sort((a, b) => Number(parse(b)?.[2]) - Number(parse(a)?.[2]))[0];
      if (name && (await move(join(asides, name), path(to)))) return true;
      return Boolean(await lstat(path(to)).catch(missing));
    },
    async giveBack(from, to, now) {
      if (await move(path(to), join(asides, `${from}.${now.getTime()}`)))
        await unlink(delivered(to)).catch(missing);
    },
    async finishDelete(workspaceId) {
      for (const name of await asideNames()) {
        const parts = parse(name);
        if (parts?.[1] === workspaceId && parts[3]) await destroy(join(asides, name));
      }
    },
    async purge({ retainedBefore, only, except }) {
      const purged = new Set<string>();
      for (const name of await asideNames()) {
        const parts = parse(name);
        if (!parts) continue;
        const [, workspaceId, since, doomed] = parts as unknown as [string, string, string, string?];
        if (only !== undefined && workspaceId !== only) continue;
        const isTooYoung = retainedBefore !== undefined && Number(since) >= retainedBefore.getTime();
        if (!doomed && (except?.has(workspaceId) || isTooYoung)) continue;
        const doomedName = doomed ? name : `${name}.doomed`;
        if (!doomed && !(await move(join(asides, name), join(asides, doomedName)))) continue;
        await destroy(join(asides, doomedName));
        purged.add(workspaceId);
      }
      return [...purged];
    },
    async exists(workspaceId) {
      if (await lstat(path(workspaceId)).catch(missing)) return true;
      return (await asideNames()).some((name) => parse(name)?.[1] === workspaceId);
    },
    async list() {
      const used = ((await readdir(directory).catch(missing)) ?? []).filter((name) => !name.startsWith('.'));
      const retained = (await asideNames()).flatMap((name) => {
        const [, workspaceId, , doomed] = parse(name) ?? [];
        return workspaceId && !doomed ? [{ name: join(asideFolder, name), workspaceId }] : [];
      });
      const found = [...used.map((name) => ({ name, workspaceId: name })), ...retained];
      const listed = await Promise.all(
        found.map(async (home) => {
          const about = await lstat(join(directory, home.name)).catch(missing);
          return about && { ...home, createdAt: about.birthtime };
        }),
      );
      return listed.filter((home) => home !== null);
    },
    async adopt(name, workspaceId, retainedAt) {
      await mkdir(asides, { recursive: true, mode: 0o700 });
      return move(join(directory, name), join(asides, `${workspaceId}.${retainedAt.getTime()}`));
    },
  };
}
