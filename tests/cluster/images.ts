// The images of test pods. None comes from a registry: Debian is installed by debootstrap, the others consist of our own
// programs and Debian packages. They are built once into the cache, and imported into containerd by `up`.
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ImageRecipe, writeArchive } from './archive.ts';
import { buildDir, clusterDir, containerdSocket, shortHash } from './layout.ts';
import { logProgress, requirePackages, run, runAsync } from './machine.ts';
import { removeLeftovers, tool } from './tool.ts';

/** The image names for pods, with `imagePullPolicy: Never` or `IfNotPresent`. */
export const images = {
  /** Sleeps; the sandbox of every pod. */
  pause: 'cde-test/pause:1',
  /** Debian 12 with bash, git, curl, ssh, sudo and the user `dev` (1000), started as root. */
  debian: 'cde-test/debian:12',
  /** The same with newer dotfiles in /etc/skel: a changed .bashrc and an additional .vimrc. */
  debianNewer: 'cde-test/debian:12b',
  /** The same Debian, started as user 1000. */
  nonroot: 'cde-test/nonroot:1',
  /** musl and a static busybox; no glibc, no bash. */
  musl: 'cde-test/musl:1',
  /** One static program, and nothing else: no shell, no /etc, no /tmp. */
  scratch: 'cde-test/scratch-like:1',
} as const;

const debianPackages = 'ca-certificates,git,procps,curl,openssh-client,sudo,less,iproute2';

/** Part of the archives' names in the cache. Raised by hand when the content of an image changes. */
const recipeVersion = '1';

const put = (folder: string, path: string, text: string, mode = 0o644) => {
  mkdirSync(join(folder, path, '..'), { recursive: true });
  writeFileSync(join(folder, path), text, { mode });
};

/** The mirror that the machine itself installs from, which may be the only one that is reachable. */
export function debianMirror(): string[] {
  if (process.env.CDE_DEBIAN_MIRROR) return [process.env.CDE_DEBIAN_MIRROR];
  const shown = run('apt-get', [
    'indextargets',
    '--format',
    '$(SITE) $(CODENAME) $(COMPONENT)',
    'Created-By: Packages',
  ]);
  const line = shown.split('\n').find((line) => / bookworm main$/.test(line));
  return line ? [line.split(' ')[0]!] : [];
}

/** Installs a small Debian 12 with the packages into the folder. */
export async function debootstrap(root: string, packages: string): Promise<void> {
  requirePackages('debootstrap');
  const mirror = debianMirror();
  await runAsync('debootstrap', ['--variant=minbase', `--include=${packages}`, 'bookworm', root, ...mirror]);
  const unneeded = [
    'var/cache/apt',
    'var/lib/apt/lists',
    'usr/share/doc',
    'usr/share/man',
    'usr/share/locale',
    'var/log',
  ];
  for (const folder of unneeded) rmSync(join(root, folder), { recursive: true, force: true });
  for (const folder of ['var/cache/apt/archives/partial', 'var/lib/apt/lists/partial', 'var/log']) {
    mkdirSync(join(root, folder), { recursive: true });
  }
  rmSync(join(root, 'etc/resolv.conf'), { force: true });
}

async function debianLayers(work: string): Promise<ImageRecipe[]> {
  const root = join(work, 'debian');
  logProgress('Building the Debian image (once)');
  await debootstrap(root, debianPackages);
  run('chroot', [root, 'useradd', '--create-home', '--uid', '1000', '--shell', '/bin/bash', 'dev']);
  put(root, 'etc/sudoers.d/dev', 'dev ALL=(ALL) NOPASSWD: ALL\n', 0o440);

  const first = join(work, 'skel-12');
  put(first, 'etc/skel/.image-version', '12\n');
  put(first, 'etc/skel/.bashrc', 'export IMAGE_DOTFILES=12\n');
  put(first, 'etc/skel/.config/tool.conf', 'from = "12"\n');
  const newer = join(work, 'skel-12b');
  put(newer, 'etc/skel/.image-version', '12b\n');
  put(newer, 'etc/skel/.bashrc', 'export IMAGE_DOTFILES=12b\n');
  put(newer, 'etc/skel/.vimrc', 'set number\n');

  const Cmd = ['/bin/bash'];
  return [
    { name: images.debian, layers: [root, first], config: { Cmd } },
    { name: images.debianNewer, layers: [root, first, newer], config: { Cmd } },
    { name: images.nonroot, layers: [root, first], config: { Cmd, User: '1000', WorkingDir: '/home/dev' } },
  ];
}

/** Unpacks Debian packages into a folder without installing them on the machine. */
async function unpack(work: string, folder: string, ...packages: string[]): Promise<void> {
  const downloads = join(work, 'packages');
  mkdirSync(downloads, { recursive: true });
  const download = () => runAsync('apt-get', ['download', '-qq', ...packages], { cwd: downloads });
  await download().catch(async () => {
    await runAsync('apt-get', ['update', '-qq']);
    await download();
  });
  for (const file of readdirSync(downloads)) run('dpkg-deb', ['-x', join(downloads, file), folder]);
}

async function smallLayers(work: string): Promise<ImageRecipe[]> {
  const pause = join(work, 'pause');
  mkdirSync(pause, { recursive: true });
  cpSync(await tool('pause'), join(pause, 'pause'));
  chmodSync(join(pause, 'pause'), 0o755);

  const musl = join(work, 'musl');
  await unpack(work, musl, 'musl', 'busybox-static');
  rmSync(join(musl, 'usr'), { recursive: true, force: true });
  for (const name of run(join(musl, 'bin/busybox'), ['--list']).trim().split('\n')) {
    if (name !== 'busybox') run('ln', ['-sf', 'busybox', join(musl, 'bin', name)]);
  }
  put(musl, 'etc/passwd', 'root:x:0:0:root:/root:/bin/sh\ndev:x:1000:1000:dev:/home/dev:/bin/sh\n');
  put(musl, 'etc/group', 'root:x:0:\ndev:x:1000:\n');
  put(musl, 'etc/skel/.profile', 'export IMAGE_DOTFILES=musl\n');
  for (const folder of ['root', 'home/dev', 'tmp', 'var/tmp', 'usr/bin'])
    mkdirSync(join(musl, folder), { recursive: true });
  run('chown', ['1000:1000', join(musl, 'home/dev')]);
  for (const folder of ['tmp', 'var/tmp']) chmodSync(join(musl, folder), 0o1777);

  return [
    { name: images.pause, layers: [pause], config: { Entrypoint: ['/pause'], User: '65534' } },
    { name: images.scratch, layers: [pause], config: { Entrypoint: ['/pause'] } },
    { name: images.musl, layers: [musl], config: { Cmd: ['/bin/sh'] } },
  ];
}

/** The path of the cached archive of a kind's images; built from the recipes if it is missing. */
export async function archive(
  kind: string,
  recipes: (work: string) => Promise<ImageRecipe[]>,
): Promise<string> {
  const file = join(buildDir, `images-${kind}-${shortHash(recipeVersion, process.arch)}.tar`);
  if (existsSync(file)) return file;
  removeLeftovers();
  const work = join(buildDir, `.images-${kind}-${process.pid}`);
  mkdirSync(work, { recursive: true });
  const began = Date.now();
  try {
    await writeArchive(file, await recipes(work));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  logProgress(`Built the ${kind} images in ${Math.round((Date.now() - began) / 1000)} s`);
  return file;
}

/** The path of the archive with pause, scratch-like and musl; built if it is missing. */
export const smallImages = (): Promise<string> => archive('small', smallLayers);

/** The path of the archive with the Debian images; built if it is missing. */
export const debianImages = (): Promise<string> => archive('debian', debianLayers);

/** Runs containerd's own client in the namespace of Kubernetes. */
export const ctr = (...args: string[]): Promise<string> =>
  runAsync('ctr', ['--address', containerdSocket, '--namespace', 'k8s.io', ...args]);

/** Imports an archive (as `docker save` or `buildctl --output type=docker` writes it) into the cluster's node. */
export async function importImages(file: string): Promise<void> {
  await ctr('images', 'import', file);
}

/** Imports the archive unless this cluster has it: its name identifies its content. */
export async function importOnce(file: string, names: readonly string[]): Promise<void> {
  const mark = join(clusterDir, 'imported.json');
  const seen = (): string[] => (existsSync(mark) ? (JSON.parse(readFileSync(mark, 'utf8')) as string[]) : []);
  const present = await ctr('images', 'ls', '-q');
  if (seen().includes(file) && names.every((name) => present.includes(`docker.io/${name}\n`))) return;
  await importImages(file);
  writeFileSync(mark, JSON.stringify([...new Set([...seen(), file])]));
}

// For another cluster than ours: `kind load image-archive $(node tests/cluster/images.ts)`, one archive a line.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log(await smallImages());
  console.log(await debianImages());
}
