import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Programs that set sysctls of their own accord, by the names of their processes. */
const tuners = [
  'tuned',
  'openshift-tuned',
  'systemd-sysctl',
  'sysctl',
  'cloud-init',
  'salt-minion',
  'puppet',
];

interface Assignment {
  file: string;
  line: number;
  value: string;
}

function listFiles(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => name.endsWith('.conf'));
  } catch {
    return [];
  }
}

/** A key of sysctl.d as a regular expression. If its first separator is a slash, it is a path: `net/ipv4/conf/all/rp_filter`. */
function patternOf(key: string): RegExp {
  const isPath = /[./]/.exec(key)?.[0] === '/';
  const dotted = isPath ? key.replace(/[./]/g, (sign) => (sign === '/' ? '.' : '/')) : key;
  const escaped = dotted.replace(/[\\^$+.()|[\]{}]/g, '\\$&');
  return new RegExp(`^${escaped.replaceAll('*', '[^.]*').replaceAll('?', '[^.]')}$`);
}

function readAssignments(file: string, sysctl: string): Assignment[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    // A link to a file that this container does not see.
    return [];
  }
  return text.split('\n').flatMap((content, index) => {
    const found = /^\s*-?([^#;=\s][^=]*?)\s*=\s*(.*?)\s*$/.exec(content);
    return found && patternOf(found[1]!).test(sysctl)
      ? [{ file, line: index + 1, value: found[2]!.replace(/\s+/g, ' ') }]
      : [];
  });
}

/** The lines of sysctl.d that set a sysctl, in the order in which systemd applies them. */
function findAssignments(folders: readonly string[], sysctl: string): Assignment[] {
  // A file replaces those of the same name in later folders.
  const files = new Map<string, string>();
  for (const folder of folders)
    for (const name of listFiles(folder)) if (!files.has(name)) files.set(name, join(folder, name));
  return [...files].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([, file]) => readAssignments(file, sysctl));
}

/** A known program that runs now. Without the node's process ids (hostPID), noded sees only its own. */
function findTuner(proc: string): string | null {
  const running = new Map<string, string>();
  for (const pid of readdirSync(proc).filter((name) => /^\d+$/.test(name)))
    try {
      running.set(readFileSync(join(proc, pid, 'comm'), 'utf8').trim(), pid);
    } catch {
      // It has ended.
    }
  const found = tuners.find((name) => running.has(name));
  return found ? `the process ${found} (${running.get(found)}) runs on the node` : null;
}

/**
 * Finds what sets a sysctl to a value: a line of the node's sysctl.d, otherwise a running program that is known to set sysctls. The
 * kernel does not say who wrote a value, so this is the likely one. `shownAs` turns a path of this container into one of the node.
 */
export function makeWriterSearch({
  folders,
  shownAs = (path) => path,
  proc = '/proc',
}: {
  folders: readonly string[];
  shownAs?: (path: string) => string;
  proc?: string;
}): (sysctl: string, value: string) => string | null {
  return (sysctl, value) => {
    const assignments = findAssignments(folders, sysctl);
    // The last line wins, unless another one sets exactly the value that was found.
    const found = assignments.findLast((one) => one.value === value) ?? assignments.at(-1);
    if (found) return `${shownAs(found.file)} line ${found.line} sets it to ${found.value}`;
    return findTuner(proc);
  };
}
