import { existsSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type DeliveredFiles, deliverSkeleton } from './skeleton.ts';
import type { User } from './users.ts';

/**
 * Delivers the dotfiles of /etc/skel, and those of the home that the image's user has for which the first has none of the
 * name. Returns the names of what was added or renewed.
 */
export async function deliverDotfiles(options: {
  home: string;
  /** A folder on the home's file system, for the record of what was delivered. */
  ours: string;
  /** Null: as this process. */
  owner: { uid: number; gid: number } | null;
  image: User | undefined;
  log: (text: string) => void;
  /** Where the home appears, if `home` is another path to it. */
  mountedAt?: string;
}): Promise<string[]> {
  const { home, ours, owner, image, log, mountedAt = home } = options;
  const record = join(ours, 'delivered.json');
  let delivered = JSON.parse((await readFile(record, 'utf8').catch(() => '')) || '{}') as DeliveredFiles;
  const added: string[] = [];
  const theirs = image?.home ?? '/';
  const skeletons = ['/etc/skel', ...(/^\/(home|root|Users|opt)(\/|$)/.test(theirs) ? [theirs] : [])];
  for (const skeleton of skeletons) {
    if (!existsSync(skeleton) || skeleton === mountedAt) continue;
    const result = await deliverSkeleton({
      skeleton,
      home,
      staging: join(ours, 'staging'),
      owner,
      delivered,
      ...(skeleton !== '/etc/skel' && { overlay: '/etc/skel' }),
      onError: log,
    });
    delivered = result.delivered;
    added.push(...result.added);
  }
  const draft = `${record}.new`;
  await writeFile(draft, JSON.stringify(delivered));
  await rename(draft, record);
  return [...new Set(added)];
}
