// Builds the images of docker/Dockerfile with BuildKit, from a Debian made here and with nothing from a container
// registry, and writes them as an archive. `node tests/kubernetes/cde-images.ts [NAME …]` prints
// their paths.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { debianMirror } from '../cluster/images.ts';
import { buildDir, shortHash } from '../cluster/layout.ts';
import { withLock } from '../cluster/lock.ts';
import { logProgress, requirePackages, run, runAsync, succeeds } from '../cluster/machine.ts';
import { tool } from '../cluster/tool.ts';
import { until } from '../kit/until.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const cdeImages = ['cde-server', 'cde-satellite', 'cde-noded', 'cde-agent'] as const;

/** Incremented by hand when the content of a base changes. */
const recipeVersion = '2';

/** A cached Debian as an OCI layout: `base` is the base of the images, `build` has the tools to build them. */
async function debian(kind: 'base' | 'build'): Promise<{ folder: string; digest: string }> {
  const folder = join(buildDir, `debian-${kind}-${shortHash(recipeVersion, process.arch)}`);
  const index = join(folder, 'index.json');
  if (!existsSync(index)) {
    requirePackages('debootstrap');
    logProgress(`Making the Debian that images are built ${kind === 'base' ? 'on' : 'with'} (once)`);
    const draft = `${folder}.${process.pid}`;
    try {
      await makeRoot(kind, join(draft, 'root'));
      await writeLayout(join(draft, 'root'), join(draft, 'layout'));
      renameSync(join(draft, 'layout'), folder);
    } finally {
      rmSync(draft, { recursive: true, force: true });
    }
  }
  const { manifests } = JSON.parse(readFileSync(index, 'utf8')) as { manifests: { digest: string }[] };
  return { folder, digest: manifests[0]!.digest };
}

async function makeRoot(kind: 'base' | 'build', root: string): Promise<void> {
  const packages = kind === 'base' ? 'ca-certificates' : 'ca-certificates,g++,make,python3,patchelf';
  await runAsync('debootstrap', [
    ...['--variant=minbase', `--include=${packages}`, 'bookworm', root],
    ...debianMirror(),
  ]);
  for (const unneeded of ['var/cache/apt', 'var/lib/apt/lists', 'usr/share/doc', 'usr/share/man'])
    rmSync(join(root, unneeded), { recursive: true, force: true });
  // The machine's bundle, for a registry with a private certificate authority.
  cpSync('/etc/ssl/certs/ca-certificates.crt', join(root, 'etc/ssl/certs/ca-certificates.crt'));
  if (kind === 'base') return;
  const npm = dirname(dirname(run('readlink', ['-f', run('which', ['npm']).trim()]).trim()));
  cpSync(npm, join(root, 'usr/local/lib/node_modules/npm'), { recursive: true });
  cpSync(process.execPath, join(root, 'usr/local/bin/node'));
  run('ln', ['-sf', '../lib/node_modules/npm/bin/npm-cli.js', join(root, 'usr/local/bin/npm')]);
  mkdirSync(join(root, 'usr/local/etc'), { recursive: true });
  writeFileSync(join(root, 'usr/local/etc/npmrc'), 'cafile=/etc/ssl/certs/ca-certificates.crt\n');
}

/** An image of one layer as an OCI layout: BuildKit caches by its digest, while a folder is new to each build. */
async function writeLayout(root: string, folder: string): Promise<void> {
  const blobs = join(folder, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const layerFile = join(folder, 'layer.tar');
  await runAsync('tar', ['--numeric-owner', '--exclude=./dev/*', '-C', root, '-cf', layerFile, '.']);
  const sum = run('sha256sum', [layerFile]).slice(0, 64);
  const size = statSync(layerFile).size;
  renameSync(layerFile, join(blobs, sum));
  const blob = (mediaType: string, value: object) => {
    const text = JSON.stringify(value);
    const digest = createHash('sha256').update(text).digest('hex');
    writeFileSync(join(blobs, digest), text);
    return { mediaType, digest: `sha256:${digest}`, size: Buffer.byteLength(text) };
  };
  const type = 'application/vnd.oci.image';
  const config = blob(`${type}.config.v1+json`, {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] },
    rootfs: { type: 'layers', diff_ids: [`sha256:${sum}`] },
  });
  const layer = { mediaType: `${type}.layer.v1.tar`, digest: `sha256:${sum}`, size };
  const mediaType = `${type}.manifest.v1+json`;
  const manifest = blob(mediaType, { schemaVersion: 2, mediaType, config, layers: [layer] });
  writeFileSync(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(join(folder, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
}

const maxCacheMb = '4000';

/** A private BuildKit on a socket, with its cache in the build cache; `end` stops it. */
async function startBuildkit(): Promise<{ address: string; end(): Promise<void> }> {
  requirePackages('runc');
  const program = await tool('buildkitd');
  const folder = mkdtempSync(join(tmpdir(), 'cde-buildkit-'));
  const address = `unix://${folder}/socket`;
  const daemon = spawn(
    program,
    [
      ...['--addr', address, '--root', join(buildDir, 'buildkit')],
      ...['--containerd-worker=false', '--oci-worker=true', '--oci-worker-net=host'],
      '--allow-insecure-entitlement=network.host',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let errors = '';
  daemon.stderr.on('data', (chunk) => {
    errors = (errors + chunk).slice(-5_000);
  });
  const end = () => daemon.kill('SIGTERM');
  process.once('exit', end);
  const ended = new Promise<void>((resolve) => daemon.once('close', () => resolve()));
  const buildctl = await tool('buildctl');
  await until(
    () => {
      if (daemon.exitCode !== null) throw new Error(`buildkitd ended:\n${errors}`);
      return succeeds(buildctl, '--addr', address, 'debug', 'workers');
    },
    Boolean,
    { forMs: 30_000, why: () => `buildkitd does not answer:\n${errors}` },
  );
  return {
    address,
    async end() {
      process.off('exit', end);
      // BuildKit's own garbage collection runs some time after a build, when it has already ended.
      succeeds(buildctl, '--addr', address, 'prune', '--keep-storage', maxCacheMb);
      end();
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Copies what the images are built from: the tree as committed or, with `CDE_IMAGES_FROM=tree`, as it is. */
function copySources(folder: string): void {
  if (process.env.CDE_IMAGES_FROM === 'tree') {
    for (const file of treeFiles()) cpSync(join(root, file), join(folder, file));
    return;
  }
  run('sh', ['-c', 'git -C "$0" archive HEAD | tar -x -C "$1"', root, folder]);
}

const treeFiles = (): string[] =>
  run('git', ['-C', root, 'ls-files', '-co', '--exclude-standard', '-z'])
    .split('\0')
    .filter((name) => name && existsSync(join(root, name)));

/** Identifies what copySources() would copy. */
function sourcesHash(): string {
  if (process.env.CDE_IMAGES_FROM !== 'tree')
    return run('git', ['-C', root, 'rev-parse', 'HEAD^{tree}']).trim();
  const hash = createHash('sha256');
  for (const file of treeFiles()) hash.update(`${file}\0`).update(readFileSync(join(root, file)));
  return hash.digest('hex');
}

/**
 * Builds the images (all of them, or the named) as `NAME:tag` and returns the paths of their archives, as `docker save`
 * writes them. An image whose sources have not changed since it was built is not built again.
 */
export function buildCdeImages(
  tag: string,
  names: readonly (typeof cdeImages)[number][] = cdeImages,
): Promise<string[]> {
  // One build at a time: they share BuildKit's folder and the archives.
  return withLock('cde-images', async () => {
    const sources = sourcesHash();
    const archiveOf = (name: string) => join(buildDir, `${name}-${tag}.tar`);
    const stampOf = (name: string) => `${archiveOf(name)}.sources`;
    const stale = names.filter(
      (name) =>
        !existsSync(archiveOf(name)) ||
        !existsSync(stampOf(name)) ||
        readFileSync(stampOf(name), 'utf8') !== sources,
    );
    if (stale.length > 0) {
      for (const name of stale) rmSync(stampOf(name), { force: true });
      await buildArchives(stale.map((name) => ({ name, image: `${name}:${tag}`, archive: archiveOf(name) })));
      for (const name of stale) writeFileSync(stampOf(name), sources);
    }
    return names.map(archiveOf);
  });
}

async function buildArchives(wanted: { name: string; image: string; archive: string }[]): Promise<void> {
  const [base, build, buildctl] = [await debian('base'), await debian('build'), await tool('buildctl')];
  const work = mkdtempSync(join(tmpdir(), 'cde-images-'));
  const source = join(work, 'source');
  mkdirSync(source);
  copySources(source);
  const buildkit = await startBuildkit();
  const began = Date.now();
  try {
    for (const { name, image, archive } of wanted) {
      const npmrc = join(process.env.HOME ?? '/root', '.npmrc');
      await runAsync(
        buildctl,
        [
          ...['--addr', buildkit.address, 'build', '--frontend', 'dockerfile.v0', '--progress', 'plain'],
          ...['--local', `context=${source}`, '--local', `dockerfile=${join(source, 'docker')}`],
          ...['--opt', `target=${name.slice('cde-'.length)}`, '--opt', 'force-network-mode=host'],
          ...['--allow', 'network.host'],
          ...['--oci-layout', `base=${base.folder}`, '--oci-layout', `build=${build.folder}`],
          ...['--opt', `context:local/base=oci-layout://base@${base.digest}`],
          ...['--opt', `context:local/build=oci-layout://build@${build.digest}`],
          ...['--opt', 'build-arg:BASE_IMAGE=local/base', '--opt', 'build-arg:BUILD_IMAGE=local/build'],
          ...(existsSync(npmrc) ? ['--secret', `id=npmrc,src=${npmrc}`] : []),
          ...['--output', `type=docker,name=${image},dest=${archive}`],
        ],
        { env: process.env },
      );
    }
    const names = wanted.map(({ name }) => name).join(', ');
    logProgress(`Built ${names} in ${Math.round((Date.now() - began) / 1000)} s`);
  } finally {
    await buildkit.end();
    rmSync(work, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const names = cdeImages.filter((name) => process.argv.includes(name));
  for (const archive of await buildCdeImages('test', names.length > 0 ? names : cdeImages))
    console.log(archive);
}
