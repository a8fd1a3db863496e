// The image that the tests start instances from: a small Debian with systemd, by debootstrap. Built once into the cache.
import { existsSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { debootstrap } from '../cluster/images.ts';
import { buildDir, shortHash } from '../cluster/layout.ts';
import { logProgress, run, runAsync } from '../cluster/machine.ts';
import { removeLeftovers } from '../cluster/tool.ts';

export const incusImages = {
  /** Debian 12 with systemd, sudo and the user `dev` (1000). */
  debian: 'debian/12',
  /** The same with newer dotfiles in /etc/skel: another .bashrc, and a .vimrc that was not there. */
  debianNewer: 'debian/12b',
  /** The same without systemd. */
  bare: 'bare/1',
} as const;

/** Raised by hand when what is in an image changes: names the archives in the cache. */
const recipeVersion = '2';
const packages = 'ca-certificates,procps,sudo,less,iproute2,systemd-sysv,dbus';
/** What has no purpose in a container, or looks for something outside. */
const masked = [
  'getty@tty1.service',
  'console-getty.service',
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'e2scrub_all.timer',
  'fstrim.timer',
];

/** Addresses come from the tests that need some; a route is what the agent's unit waits for. */
const networkUnit = `[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'ip link set eth0 up && ip route add default dev eth0'
[Install]
WantedBy=sysinit.target
`;

const put = (folder: string, path: string, text: string, mode = 0o644) => {
  mkdirSync(join(folder, path, '..'), { recursive: true });
  writeFileSync(join(folder, path), text, { mode });
};

function configure(root: string): void {
  run('chroot', [root, 'useradd', '--create-home', '--uid', '1000', '--shell', '/bin/bash', 'dev']);
  put(root, 'etc/sudoers.d/dev', 'dev ALL=(ALL) NOPASSWD: ALL\n', 0o440);
  put(root, 'etc/systemd/system/test-network.service', networkUnit);
  run('chroot', [root, 'systemctl', '--quiet', 'enable', 'test-network.service']);
  run('chroot', [root, 'systemctl', '--quiet', 'mask', ...masked]);
  put(root, 'etc/machine-id', '');
  put(root, 'etc/skel/.image-version', '12\n');
  put(root, 'etc/skel/.bashrc', 'export IMAGE_DOTFILES=12\n');
}

/** Writes a root file system as an image of Incus. Later folders are laid over the first. */
async function writeImage(work: string, file: string, folders: string[]): Promise<void> {
  const architecture = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  const about = join(work, 'about');
  put(
    about,
    'metadata.yaml',
    JSON.stringify({ architecture, creation_date: 1_700_000_000, properties: { os: 'debian', name: file } }),
  );
  const draft = join(work, 'image.tar');
  await runAsync('tar', [
    ...['--numeric-owner', '--exclude=./dev/*', '--transform=flags=rh;s,^\\./,rootfs/,', '-cf', draft],
    ...['-C', about, 'metadata.yaml'],
    ...folders.flatMap((folder) => ['-C', folder, '.']),
  ]);
  renameSync(draft, file);
}

/** The archives by the alias that they are imported under; built if need be. */
export async function incusImageFiles(): Promise<Record<string, string>> {
  const hash = shortHash(recipeVersion, process.arch, packages);
  const files = Object.fromEntries(
    Object.values(incusImages).map((alias) => [
      alias,
      join(buildDir, `incus-${alias.replace('/', '-')}-${hash}.tar`),
    ]),
  );
  if (Object.values(files).every((file) => existsSync(file))) return files;
  removeLeftovers();
  const work = join(buildDir, `.incus-images-${process.pid}`);
  mkdirSync(work, { recursive: true });
  const began = Date.now();
  logProgress('Building the image for Incus (once)');
  try {
    const root = join(work, 'root');
    await debootstrap(root, packages);
    configure(root);
    const newer = join(work, 'newer');
    put(newer, 'etc/skel/.image-version', '12b\n');
    put(newer, 'etc/skel/.bashrc', 'export IMAGE_DOTFILES=12b\n');
    put(newer, 'etc/skel/.vimrc', 'set number\n');
    const bare = join(work, 'bare');
    put(bare, 'etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n');
    mkdirSync(join(bare, 'sbin'), { recursive: true });
    symlinkSync('/bin/true', join(bare, 'sbin/init'));
    await writeImage(work, files[incusImages.debianNewer]!, [root, newer]);
    await writeImage(work, files[incusImages.bare]!, [bare]);
    await writeImage(work, files[incusImages.debian]!, [root]);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  logProgress(`Built the image for Incus in ${Math.round((Date.now() - began) / 1000)} s`);
  return files;
}
