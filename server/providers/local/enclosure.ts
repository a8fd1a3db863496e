import { existsSync, lstatSync, readlinkSync, realpathSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';

/** A mount, applied in order, parents first. `to` is the path inside. */
export type Mount =
  | { kind: 'read-only'; from: string; to: string }
  | { kind: 'writable'; from: string; to: string }
  | { kind: 'scratch'; to: string; mode: string }
  | { kind: 'symlink'; target: string; to: string }
  | { kind: 'devices'; to: string }
  | { kind: 'processes'; to: string };

export interface EnclosureNeeds {
  /** The home on the host, and where it appears. */
  home: { from: string; to: string };
  /** Host paths of files generated for this workspace: passwd, group, hosts, hostname. */
  etc: Record<string, string>;
  /** Paths that the agent's command needs. */
  readOnlyPaths: string[];
  /** The folder of the server's sockets on the host, and where it appears. Only with a separate network. */
  gateway?: { from: string; to: string } | undefined;
  /** Hidden, even below a visible folder. */
  dataDir: string;
}

const depth = (path: string) => (path === '/' ? 0 : path.split('/').length);
const isBelow = (path: string, folder: string) => path === folder || path.startsWith(`${folder}/`);

/** Files in /etc that are often symlinks to hidden places, so their targets are mounted instead. */
const looseEnds = [
  '/etc/resolv.conf',
  '/etc/hosts',
  '/etc/localtime',
  '/etc/ssl/certs',
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs',
  '/etc/ssl/cert.pem',
];

/**
 * What a workspace sees of the machine: the system (read-only), its home, scratch space, and the agent's files. Nothing
 * else of the host exists inside, neither other homes nor the server's data.
 */
export function planEnclosure({ home, etc, readOnlyPaths, gateway, dataDir }: EnclosureNeeds): Mount[] {
  const mounts: Mount[] = [];
  const system = ['/usr', '/etc', '/opt', '/nix'].filter((path) => existsSync(path));
  for (const path of system) mounts.push({ kind: 'read-only', from: path, to: path });
  for (const path of ['/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32']) {
    if (!existsSync(path)) continue;
    if (lstatSync(path).isSymbolicLink())
      mounts.push({ kind: 'symlink', target: readlinkSync(path), to: path });
    else mounts.push({ kind: 'read-only', from: path, to: path });
  }
  mounts.push({ kind: 'processes', to: '/proc' }, { kind: 'devices', to: '/dev' });
  mounts.push({ kind: 'scratch', to: '/dev/shm', mode: '1777' });
  mounts.push({ kind: 'scratch', to: '/tmp', mode: '1777' }, { kind: 'scratch', to: '/run', mode: '0755' });
  mounts.push(
    { kind: 'scratch', to: '/var', mode: '0755' },
    { kind: 'scratch', to: '/var/tmp', mode: '1777' },
  );
  mounts.push({ kind: 'symlink', target: '/run', to: '/var/run' });
  const covered = new Set<string>();
  for (const [name, from] of Object.entries(etc)) {
    const to = `/etc/${name}`;
    if (!existsSync(to)) continue;
    // A file can be mounted over, a symlink into the system cannot. systemd's resolv.conf points to /run, which is a
    // new tmpfs.
    const real = name === 'resolv.conf' ? realpathSync(to) : to;
    if (lstatSync(real).isSymbolicLink()) continue;
    mounts.push({ kind: 'read-only', from, to: real });
    covered.add(real);
  }

  const shown = new Set<string>();
  const show = (path: string) => {
    if (shown.has(path) || system.some((folder) => isBelow(path, folder) && !isBelow(dataDir, folder)))
      return;
    shown.add(path);
    mounts.push({ kind: 'read-only', from: realpathSync(path), to: path });
  };
  for (const end of looseEnds) {
    const real = existsSync(end) ? realpathSync(end) : end;
    if (!covered.has(real) && !system.some((folder) => isBelow(real, folder))) show(real);
  }
  for (const path of readOnlyPaths) {
    show(path);
    show(realpathSync(path));
  }
  const covers = [...system, ...shown].some((folder) => isBelow(dataDir, folder) && dataDir !== folder);
  if (covers) mounts.push({ kind: 'scratch', to: dataDir, mode: '0755' });

  if (gateway) mounts.push({ kind: 'read-only', ...gateway });
  mounts.push({ kind: 'writable', ...home });
  // A stable sort: among equal paths the later mount covers the earlier, as in the order above.
  return mounts.sort((a, b) => depth(a.to) - depth(b.to));
}

/** The existing absolute paths in the agent's command. */
export function pathsOfCommand(command: string[]): string[] {
  return command.filter((word) => isAbsolute(word) && existsSync(word));
}

/** Whether other users can read it. Its parent folders are replaced inside, so only its own mode counts. */
export function isReadableByOthers(path: string): boolean {
  const info = lstatSync(realpathSync(path));
  return (info.mode & (info.isDirectory() ? 0o005 : 0o004)) === (info.isDirectory() ? 0o005 : 0o004);
}

/** An executable on the PATH, as an absolute path. */
export function findProgram(name: string, path = process.env.PATH ?? ''): string | null {
  for (const folder of [...path.split(':'), '/usr/bin', '/bin', '/usr/sbin', '/sbin']) {
    if (isAbsolute(folder) && existsSync(join(folder, name))) return join(folder, name);
  }
  return null;
}
