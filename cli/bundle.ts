/**
 * Packs the CLI into a tarball that runs without the repository: `npm install -g cde-cli-VERSION.tgz`. The bundle
 * contains everything except node-datachannel, whose native module is an optional dependency: without it, sessions do
 * not use UDP.
 *
 * usage: node cli/bundle.ts [FOLDER]
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { programBundle } from '@cde/tunnel/program-bundle.ts';
import { build } from 'esbuild';

const folder = dirname(fileURLToPath(import.meta.url));
const read = (path: string) => JSON.parse(readFileSync(join(folder, path), 'utf8'));

/** Builds the package in `into`/package and its tarball in `into`; returns the tarball's path. */
export async function packCli(into = join(folder, 'dist')): Promise<string> {
  const made = join(into, 'package');
  rmSync(made, { recursive: true, force: true });
  mkdirSync(made, { recursive: true });
  await build({
    ...programBundle,
    absWorkingDir: folder,
    entryPoints: { cde: 'cde.mjs', 'lib/template-check': '../server/templates/check.ts' },
    outdir: made,
    // One level down, like the sources, so that relative paths with ../ stay valid.
    chunkNames: 'lib/[name]-[hash]',
    legalComments: 'eof',
  });
  const { version, license } = read('package.json') as { version: string; license: string };
  const { dependencies } = read('../tunnel/package.json') as { dependencies: Record<string, string> };
  const manifest = {
    name: 'cde-cli',
    version,
    description: 'The command line of cde, a control plane for cloud development environments',
    license,
    type: 'module',
    bin: { cde: 'cde.mjs' },
    engines: { node: '>=24' },
    optionalDependencies: { 'node-datachannel': dependencies['node-datachannel'] },
  };
  writeFileSync(join(made, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  copyFileSync(join(folder, '../docs/cli.md'), join(made, 'README.md'));
  copyFileSync(join(folder, '../LICENSE'), join(made, 'LICENSE'));
  const packed = spawnSync('npm', ['pack', '--json', '--pack-destination', into], {
    cwd: made,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (packed.status !== 0) throw new Error(`npm pack ended with ${packed.status}`);
  return join(into, `cde-cli-${version}.tgz`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const path = await packCli(process.argv[2] === undefined ? undefined : resolve(process.argv[2]));
  process.stdout.write(`${path} (${Math.round(statSync(path).size / 1024)} kB)\n`);
}
