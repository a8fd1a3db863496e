/**
 * Creates the contents of the agent's image as a folder: OUT/opt/cde with the agent, Node and Node's C library, so that it
 * runs in any image of the same architecture, whether based on glibc, musl or nothing.
 * Needs patchelf and ldd (Debian: patchelf, libc-bin).
 *
 * usage: node agent/container/image.ts OUT
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { freshBundle } from '../bundle.ts';

const here = dirname(fileURLToPath(import.meta.url));
/** Its path in every workspace; the Node binary's loader path points there. */
const installPath = '/opt/cde';

/** Fills the folder `out`, deleting its previous contents. */
export async function makeAgentImage(out: string): Promise<void> {
  const folder = join(out, installPath);
  rmSync(out, { recursive: true, force: true });
  mkdirSync(join(folder, 'lib'), { recursive: true });
  const dist = dirname(await freshBundle());
  for (const name of readdirSync(dist))
    if (/\.(mjs|node)$/.test(name)) cpSync(join(dist, name), join(folder, name));
  await build({
    entryPoints: {
      install: join(here, 'install.ts'),
      prepare: join(here, '../../server/providers/kubernetes/prepare/prepare.ts'),
    },
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    minify: true,
    logLevel: 'warning',
  });

  const node = join(folder, 'node');
  copyFileSync(process.execPath, node);
  const linked = execFileSync('ldd', [process.execPath], { encoding: 'utf8' });
  const libraries = [...linked.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((match) => match[1]!);
  for (const library of libraries) {
    copyFileSync(library, join(folder, 'lib', basename(library)));
    chmodSync(join(folder, 'lib', basename(library)), 0o755);
  }
  const loader = libraries.map((library) => basename(library)).find((name) => name.startsWith('ld-'));
  if (!loader) throw new Error(`ldd names no loader for ${process.execPath}:\n${linked}`);
  execFileSync('patchelf', [
    ...['--set-interpreter', `${installPath}/lib/${loader}`],
    ...['--set-rpath', `${installPath}/lib`, '--force-rpath'],
    node,
  ]);
  chmodSync(node, 0o755);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const out = process.argv[2];
  if (!out) {
    process.stderr.write('usage: node agent/container/image.ts OUT\n');
    process.exit(2);
  }
  await makeAgentImage(out);
  process.stdout.write(`${out}\n`);
}
