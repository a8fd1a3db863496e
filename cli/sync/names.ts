import { posix } from 'node:path';

const maxNameBytes = 255;

/** `app.ts.conflict-web-20261121-104500`: whose version it is, and since when; with a number where that is taken. */
export function makeConflictName(
  who: string,
  now: () => Date,
): (path: string, taken: (path: string) => boolean) => string {
  const label = who.replaceAll(/[^\w-]+/g, '-').slice(0, 80);
  return (path, taken) => {
    const when = now()
      .toISOString()
      .replace(/[-:]|\.\d+Z/g, '')
      .replace('T', '-');
    const folder = posix.dirname(path);
    for (let number = 1; ; number += 1) {
      const end = `.conflict-${label}-${when}${number > 1 ? `-${number}` : ''}`;
      let start = posix.basename(path);
      while (Buffer.byteLength(start + end) > maxNameBytes) start = [...start].slice(0, -1).join('');
      const name = folder === '.' ? start + end : `${folder}/${start}${end}`;
      if (!taken(name)) return name;
    }
  };
}

/** Left out unless a rule of the user's takes them in: what belongs to one machine, and what is not whole yet. */
export const defaultRules: readonly string[] = [
  'node_modules',
  '.DS_Store',
  'Thumbs.db',
  'desktop.ini',
  // Editors' halves and locks.
  '.*.sw?',
  '*~',
  '.#*',
  // cde cp's.
  '.*.cde-part',
];
