import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Mount } from './enclosure.ts';

/** The parts that wrap the agent's command so that it runs isolated. */
export interface Enclosed {
  mounts: Mount[];
  home: string;
  hostname: string;
  /** As root: the host uid to switch to. Null: keep the server's. */
  hostUid: number | null;
  /** Whether a user namespace maps that uid to 1000. */
  userNamespace: boolean;
  /** Only bubblewrap applies one; see seccomp.ts. */
  seccompFilter: Uint8Array | null;
  tools: Tools;
}

/** Files that bubblewrap reads in addition to its command line. */
export interface BwrapFiles {
  /**
   * The options, each followed by NUL. Not on the command line, because that is visible inside and they contain host
   * paths.
   */
  options: string;
  /** Null: no filter. */
  filter: string | null;
}

export interface Tools {
  bwrap: string | null;
  unshare: string | null;
  setpriv: string | null;
}

/** The last steps inside: switch to the host uid permanently, then to 1000 in a new user namespace. */
function become({ hostUid, userNamespace, tools }: Enclosed, always = false): string[] {
  const words: string[] = [];
  if (hostUid !== null || always) {
    // Mapping a namespace's root into a nested one requires setfcap; uid 1000 inside has no capabilities.
    const kept = hostUid === null ? ',+setfcap' : '';
    words.push(tools.setpriv!, '--no-new-privs', '--inh-caps=-all', `--bounding-set=-all${kept}`);
    if (hostUid !== null)
      words.push('--reuid', String(hostUid), '--regid', String(hostUid), '--clear-groups');
  }
  if (userNamespace) words.push(tools.unshare!, '--user', '--map-user=1000', '--map-group=1000', '--');
  return words;
}

/**
 * With bubblewrap. As root it mounts with full privileges, because the agent's files may be in a folder that no other
 * user can enter, and then keeps only the capabilities needed to enter the home and switch to its uid.
 */
export function bwrapOptions({ mounts, home, hostname, hostUid }: Enclosed): string[] {
  const words = ['--die-with-parent', '--unshare-pid', '--unshare-ipc', '--unshare-uts'];
  words.push('--hostname', hostname, '--cap-drop', 'ALL');
  if (hostUid === null) words.push('--unshare-user', '--uid', '1000', '--gid', '1000');
  else
    for (const capability of ['SETUID', 'SETGID', 'SETPCAP', 'DAC_READ_SEARCH'])
      words.push('--cap-add', `CAP_${capability}`);
  for (const mount of mounts) {
    // By default bwrap makes the parent folders of a private source private too.
    const above = dirname(mount.to);
    if ((mount.kind === 'read-only' || mount.kind === 'writable') && above !== '/')
      words.push('--dir', above);
    if (mount.kind === 'read-only') words.push('--ro-bind', mount.from, mount.to);
    else if (mount.kind === 'writable') words.push('--bind', mount.from, mount.to);
    else if (mount.kind === 'symlink') words.push('--symlink', mount.target, mount.to);
    else if (mount.kind === 'devices') words.push('--dev', mount.to);
    else if (mount.kind === 'processes') words.push('--proc', mount.to);
    else words.push('--perms', mount.mode, '--tmpfs', mount.to);
  }
  return [...words, '--remount-ro', '/', '--chdir', home];
}

/**
 * Opens the files last, so that no earlier step can close them, and leaves no host paths in the environment. Fails if a
 * file is missing, because nothing must run without its filter.
 */
const bwrapScript = (filtered: boolean) =>
  filtered
    ? 'exec 7<"$1" 8<"$2" || exit 1; shift 2; unset PWD OLDPWD; exec "$@"'
    : 'exec 7<"$1" || exit 1; shift; unset PWD OLDPWD; exec "$@"';

export function bwrapCommand(enclosed: Enclosed, files: BwrapFiles, command: string[]): string[] {
  const filtered = files.filter !== null;
  return [
    ...['/bin/sh', '-c', bwrapScript(filtered), 'sh', files.options, ...(filtered ? [files.filter!] : [])],
    ...[enclosed.tools.bwrap!, '--args', '7', ...(filtered ? ['--seccomp', '8'] : []), '--'],
    ...(enclosed.hostUid === null ? [] : become(enclosed)),
    ...command,
  ];
}

/** `sh` text in single quotes. */
const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * Mount options that cannot be cleared in a user namespace:
 * https://man7.org/linux/man-pages/man7/mount_namespaces.7.html
 */
const sticky = ['nosuid', 'nodev', 'noexec', 'noatime', 'nodiratime'];

interface Mounted {
  point: string;
  options: string[];
}

function mountTable(): Mounted[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const fields = line.split(' ');
      const point = fields[4]!.replace(/\\(\d{3})/g, (_, octal) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      );
      return { point, options: fields[5]!.split(',') };
    });
}

function stickyOptions(path: string, table: Mounted[]): string[] {
  const over = table
    .filter(({ point }) => point === '/' || path === point || path.startsWith(`${point}/`))
    .sort((a, b) => a.point.length - b.point.length);
  return over.at(-1)?.options.filter((option) => sticky.includes(option)) ?? [];
}

/** Runs as pid 1 inside: starts the agent, which alone gets stdin, and reaps orphaned processes. */
const init =
  'trap : TERM INT HUP; exec 3<&0; "$@" <&3 3<&- & exec 3<&- </dev/null; while :; do wait $!; code=$?; kill -0 $! 2>/dev/null || exit $code; done';

/** The script that builds the new root, run as the first process of the new namespaces. `root`: an empty folder. */
export function enterScript({ mounts, home, hostname }: Enclosed, root: string): string {
  const table = mountTable();
  const lines = [
    '#!/bin/sh',
    'set -eu',
    'umask 022',
    `root=${quote(root)}`,
    `hostname ${quote(hostname)} 2>/dev/null || :`,
    'mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs "$root"',
    'cd "$root"',
    'folder() { [ -d ".$1" ] || mkdir -p ".$1"; }',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: for sh
    'file() { [ -e ".$1" ] || { folder "${1%/*}"; : >".$1"; }; }',
    'like() { if [ -d "$1" ]; then folder "$2"; else file "$2"; fi; }',
  ];
  for (const mount of mounts) {
    const to = quote(mount.to);
    if (mount.kind === 'read-only' || mount.kind === 'writable') {
      const options = new Set(['rbind', 'nosuid', 'nodev', ...stickyOptions(mount.from, table)]);
      if (mount.kind === 'read-only') options.add('ro');
      lines.push(
        `like ${quote(mount.from)} ${to}`,
        `mount -o ${[...options].join(',')} ${quote(mount.from)} .${to}`,
      );
      if (mount.kind === 'read-only') {
        // `ro` applies only to the top mount, so the mounts below it are remounted one by one.
        for (const { point, options: own } of table) {
          if (!point.startsWith(`${mount.from}/`)) continue;
          const kept = [
            'remount',
            'bind',
            'ro',
            'nosuid',
            'nodev',
            ...own.filter((option) => sticky.includes(option)),
          ];
          lines.push(
            `mount -o ${[...new Set(kept)].join(',')} .${quote(mount.to + point.slice(mount.from.length))}`,
          );
        }
      }
    } else if (mount.kind === 'scratch') {
      lines.push(`folder ${to}`, `mount -t tmpfs -o nosuid,nodev,mode=${mount.mode} tmpfs .${to}`);
    } else if (mount.kind === 'symlink') {
      lines.push(`ln -s ${quote(mount.target)} .${to}`);
    } else if (mount.kind === 'processes') {
      lines.push(`folder ${to}`, `mount -t proc -o nosuid,nodev,noexec proc .${to}`);
    } else {
      lines.push(
        `folder ${to}`,
        `mount -t tmpfs -o nosuid,mode=0755 tmpfs .${to}`,
        `for device in null zero full random urandom tty; do : >.${to}/$device; mount -o bind,nosuid /dev/$device .${to}/$device; done`,
        `mkdir .${to}/pts .${to}/shm`,
        `mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=620 devpts .${to}/pts`,
        `ln -s pts/ptmx .${to}/ptmx`,
        `ln -s /proc/self/fd .${to}/fd`,
        `ln -s /proc/self/fd/0 .${to}/stdin`,
        `ln -s /proc/self/fd/1 .${to}/stdout`,
        `ln -s /proc/self/fd/2 .${to}/stderr`,
      );
    }
  }
  lines.push(
    'mkdir .old-root',
    'pivot_root . .old-root',
    'cd /',
    'umount -l /.old-root',
    'rmdir /.old-root',
    'mount -o remount,bind,ro,nosuid,nodev /',
    `cd ${quote(home)}`,
    'unset OLDPWD',
    'exec "$@"',
  );
  return `${lines.join('\n')}\n`;
}

/** Without bubblewrap: util-linux and the script above, stored at `script`. */
export function unshareCommand(enclosed: Enclosed, script: string, command: string[]): string[] {
  const { hostUid, tools } = enclosed;
  return [
    // The whole tree ends with the supervisor: its death kills unshare, and that kills the namespace's init.
    ...[tools.setpriv!, '--pdeathsig', 'KILL', tools.unshare!, '--fork', '--kill-child'],
    ...['--mount', '--pid', '--ipc', '--uts', ...(hostUid === null ? ['--user', '--map-root-user'] : [])],
    ...['--', '/bin/sh', script],
    ...become(enclosed, true),
    ...['/bin/sh', '-c', init, 'init'],
    ...command,
  ];
}

/** Without isolation. If the kernel supports it, the agent still ends with its supervisor. */
export function plainCommand(tools: Tools, command: string[]): string[] {
  return tools.setpriv ? [tools.setpriv, '--pdeathsig', 'KILL', ...command] : command;
}
