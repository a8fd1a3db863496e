// The texts of /etc by which programs know a user: what they become when the developer takes the place of the
// image's user of the same number.

/** One line of /etc/passwd. */
export interface User {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

/** Who the developer is inside. */
export interface Developer {
  name: string;
  uid: number;
  gid: number;
  home: string;
  shell: string;
}

const linesOf = (text: string) => text.split('\n').filter((line) => line.trim() !== '');
const textOf = (lines: readonly string[]) => `${lines.join('\n')}\n`;
const nameOf = (line: string) => line.slice(0, line.indexOf(':'));

/** The users of a passwd file; lines that are none are left out. */
export function readUsers(passwd: string): User[] {
  return linesOf(passwd).flatMap((line) => {
    const [name, , uid, gid, , home = ''] = line.split(':');
    return name && uid !== undefined && gid !== undefined
      ? [{ name, uid: Number(uid), gid: Number(gid), home }]
      : [];
  });
}

/**
 * /etc/passwd with the developer as the first of their number, so that files of it are theirs by name. Root keeps
 * its own line, or sudo and package scripts would not find it.
 */
export function passwdWith(passwd: string, developer: Developer): string {
  const { name, uid, gid, home, shell } = developer;
  const own = `${name}:x:${uid}:${gid}:${name}:${home}:${shell}`;
  const root = linesOf(passwd).find((line) => nameOf(line) === 'root') ?? 'root:x:0:0:root:/root:/bin/sh';
  // Of a root developer's home and shell, whatever asks by number.
  const first = uid === 0 ? `root:x:0:0:root:${home}:${shell}` : root;
  const others = linesOf(passwd).filter((line) => {
    const [user, , number] = line.split(':');
    return user !== 'root' && user !== name && Number(number) !== uid;
  });
  return textOf([first, ...(name === 'root' ? [] : [own]), ...others]);
}

/** /etc/group: the developer is in the groups that the image's user is in, and has one of their own. */
export function groupWith(group: string, developer: Developer, image: User | undefined): string {
  const { name, gid } = developer;
  const lines = linesOf(group)
    .filter((line) => nameOf(line) !== name || line.split(':')[2] === String(gid))
    .map((line) => {
      const [title, x, number, members = ''] = line.split(':');
      const list = members.split(',').filter(Boolean);
      if (!image || !list.includes(image.name) || list.includes(name)) return line;
      return [title, x, number, [...list, name].join(',')].join(':');
    });
  const has = lines.some((line) => line.split(':')[2] === String(gid));
  return textOf(has ? lines : [...lines, `${name}:x:${gid}:`]);
}

/** /etc/shadow: no password fits, and the account is a good one; without a line sudo refuses its own user. */
export function shadowWith(shadow: string, name: string): string {
  return textOf([...linesOf(shadow).filter((line) => nameOf(line) !== name), `${name}:*:19000:0:99999:7:::`]);
}

/** /etc/subuid or subgid: the ranges of the image's user are the developer's, for rootless containers. */
export function rangesWith(ranges: string, name: string, image: User | undefined): string {
  const lines = linesOf(ranges);
  if (!image || image.name === name) return textOf(lines);
  const theirs = lines.filter((line) => nameOf(line) === image.name);
  return textOf([
    ...lines.filter((line) => nameOf(line) !== name),
    ...theirs.map((line) => name + line.slice(image.name.length)),
  ]);
}

/** A name may hold what sudoers would read as something else. */
const sudoersName = (name: string) => name.replace(/[^A-Za-z0-9_.-]/g, '\\$&');

/** Lets the user run everything as root, without a password. */
export const sudoersForAll = (name: string) => `${sudoersName(name)} ALL=(ALL:ALL) NOPASSWD: ALL\n`;

/** What sudoers files grant the image's user by name, granted to the developer; empty when it is nothing. */
export function sudoersFor(sudoers: readonly string[], name: string, image: User | undefined): string {
  if (!image || image.uid === 0 || image.name === name) return '';
  const granted = sudoers
    .flatMap((text) => text.replaceAll('\\\n', ' ').split('\n'))
    .filter((line) => line.startsWith(`${image.name} `) || line.startsWith(`${image.name}\t`))
    .map((line) => sudoersName(name) + line.slice(image.name.length));
  return granted.length > 0 ? textOf(granted) : '';
}
