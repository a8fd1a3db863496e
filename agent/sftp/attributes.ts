import { type BigIntStats, constants } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { field, type Reader } from './packets.ts';

/** File attributes of SFTP version 3. In a request, absent ones stay unchanged. */
export interface Attributes {
  size?: number;
  owner?: { uid: number; gid: number };
  /** Permission bits and file type. */
  mode?: number;
  /** In seconds. */
  times?: { accessed: number; modified: number };
}

const present = { size: 1, owner: 2, mode: 4, times: 8, extended: 0x80000000 };

export function readAttributes(reader: Reader): Attributes {
  const flags = reader.uint32();
  const attributes: Attributes = {};
  if (flags & present.size) attributes.size = reader.uint64();
  if (flags & present.owner) attributes.owner = { uid: reader.uint32(), gid: reader.uint32() };
  if (flags & present.mode) attributes.mode = reader.uint32();
  if (flags & present.times) attributes.times = { accessed: reader.uint32(), modified: reader.uint32() };
  if (flags & present.extended) {
    for (let count = reader.uint32(); count > 0; count -= 1) {
      reader.bytes();
      reader.bytes();
    }
  }
  return attributes;
}

export function writeAttributes(stats: BigIntStats): Buffer {
  return Buffer.concat([
    field.uint32(present.size | present.owner | present.mode | present.times),
    field.uint64(stats.size),
    field.uint32(Number(stats.uid)),
    field.uint32(Number(stats.gid)),
    field.uint32(Number(stats.mode)),
    field.uint32(seconds(stats.atimeMs)),
    field.uint32(seconds(stats.mtimeMs)),
  ]);
}

/** For a file whose attributes cannot be read. */
export const noAttributes = field.uint32(0);

function seconds(milliseconds: bigint): number {
  const value = Number(milliseconds / 1000n);
  return Math.min(Math.max(value, 0), 0xffffffff);
}

/** Names of users and groups by id, from /etc/passwd and /etc/group. */
export interface Accounts {
  user(uid: number): string | undefined;
  group(gid: number): string | undefined;
  /** The home of a user by name. */
  home(name: string): string | undefined;
}

export async function readAccounts(): Promise<Accounts> {
  const [users, groups] = await Promise.all(['/etc/passwd', '/etc/group'].map(readTable));
  const byNumber = (rows: string[][]) => new Map(rows.map((row) => [Number(row[2]), row[0]!]));
  const userNames = byNumber(users!);
  const groupNames = byNumber(groups!);
  const homes = new Map(users!.map((row) => [row[0]!, row[5]]));
  return {
    user: (uid) => userNames.get(uid),
    group: (gid) => groupNames.get(gid),
    home: (name) => homes.get(name),
  };
}

async function readTable(path: string): Promise<string[][]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text
    .split('\n')
    .map((line) => line.split(':'))
    .filter((row) => row.length > 3);
}

const typeLetters: Record<number, string> = {
  [constants.S_IFSOCK]: 's',
  [constants.S_IFLNK]: 'l',
  [constants.S_IFREG]: '-',
  [constants.S_IFBLK]: 'b',
  [constants.S_IFDIR]: 'd',
  [constants.S_IFCHR]: 'c',
  [constants.S_IFIFO]: 'p',
};
const months = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');
const halfYearMs = 182 * 24 * 60 * 60 * 1000;

/** A line of `ls -l`, which the sftp client prints as it is. */
export function longName(name: Buffer, stats: BigIntStats, accounts: Accounts): Buffer {
  const mode = Number(stats.mode);
  const triple = (bits: number, special: boolean, letter: string) =>
    (bits & 4 ? 'r' : '-') +
    (bits & 2 ? 'w' : '-') +
    (special ? (bits & 1 ? letter : letter.toUpperCase()) : bits & 1 ? 'x' : '-');
  const permissions =
    (typeLetters[mode & constants.S_IFMT] ?? '?') +
    triple(mode >> 6, (mode & 0o4000) !== 0, 's') +
    triple(mode >> 3, (mode & 0o2000) !== 0, 's') +
    triple(mode, (mode & 0o1000) !== 0, 't');
  const user = accounts.user(Number(stats.uid)) ?? String(stats.uid);
  const group = accounts.group(Number(stats.gid)) ?? String(stats.gid);
  const date = new Date(Number(stats.mtimeMs));
  const day = `${months[date.getMonth()]} ${String(date.getDate()).padStart(2)}`;
  const age = Date.now() - date.getTime();
  const time =
    age > halfYearMs || age < -60 * 60 * 1000
      ? ` ${date.getFullYear()}`
      : `${String(date.getHours()).padStart(2, '0')}:${String(date.getMinutes()).padStart(2, '0')}`;
  const front = [
    permissions,
    String(stats.nlink).padStart(4),
    user.padEnd(8),
    group.padEnd(8),
    String(stats.size).padStart(8),
    day,
    time,
    '',
  ].join(' ');
  return Buffer.concat([Buffer.from(front), name]);
}
