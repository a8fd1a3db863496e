import { existsSync } from 'node:fs';
import { chmod, lchown, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  type Developer,
  groupWith,
  passwdWith,
  rangesWith,
  shadowWith,
  sudoersFor,
  type User,
} from './users.ts';

/** The best first. */
const shells = [
  '/bin/bash',
  '/usr/bin/bash',
  '/usr/local/bin/bash',
  '/bin/zsh',
  '/usr/bin/zsh',
  '/bin/ash',
  '/bin/sh',
  '/usr/bin/sh',
];

/** The developer's shell in this image; undefined if it has none. */
export const findShell = (): string | undefined => shells.find((path) => existsSync(path));

/**
 * Writes the files of /etc by which programs know the developer into the folder `to`, from those in /etc. `all`: also those
 * that only root can read or that grant rights; without it passwd and group alone.
 */
export async function writeEtcUsers(
  to: string,
  { developer, image, all }: { developer: Developer; image: User | undefined; all: boolean },
): Promise<void> {
  const read = (name: string) => readFile(join('/etc', name), 'utf8').catch(() => '');
  const put = async (name: string, text: string, mode: number) => {
    const path = join(to, name);
    await mkdir(dirname(path), { recursive: true });
    await rm(path, { force: true });
    await writeFile(path, text);
    await chmod(path, mode);
  };
  await put(
    'passwd',
    passwdWith((await read('passwd')) || 'root:x:0:0:root:/root:/bin/sh\n', developer),
    0o644,
  );
  await put('group', groupWith((await read('group')) || 'root:x:0:\n', developer, image), 0o644);
  if (!all) return;
  if (existsSync('/etc/shadow') && developer.name !== 'root') {
    const { mode, uid, gid } = await stat('/etc/shadow');
    await put('shadow', shadowWith(await read('shadow'), developer.name), mode & 0o777);
    await lchown(join(to, 'shadow'), uid, gid);
  }
  for (const name of ['subuid', 'subgid'])
    if (existsSync(join('/etc', name)))
      await put(name, rangesWith(await read(name), developer.name, image), 0o644);
  const files = await readdir('/etc/sudoers.d').catch(() => []);
  const sudoers = [await read('sudoers')];
  for (const file of files) sudoers.push(await read(join('sudoers.d', file)));
  const granted = sudoersFor(sudoers, developer.name, image);
  if (granted) await put('sudoers.d/cde-developer', granted, 0o440);
}
