/**
 * Bundles the agent into `agent/dist`: `agent.mjs`, its chunks, `keep-awake.mjs` and the native modules, so that this folder and a Node
 * binary of the same platform are enough to run it in any image.
 *
 * usage: node agent/bundle.ts
 */
import { existsSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { programBundle } from '@cde/tunnel/program-bundle.ts';
import { build, type Plugin } from 'esbuild';
import { limitedFile, withPacketLimit } from './ssh/protocol/packet-limit.ts';

const folder = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const platform = `${process.platform}-${process.arch}`;

/** The package with node-datachannel's binary for this platform. */
function iceBinary(): string {
  const own = createRequire(require.resolve('node-datachannel', { paths: [join(folder, '../tunnel')] }));
  return own.resolve(`@node-datachannel/${platform}${process.platform === 'linux' ? '-gnu' : ''}`);
}

/** Native modules by their names in dist. Everything else is bundled. */
const native = {
  'pty.node': () => require.resolve(`@lydell/node-pty-${platform}/pty.node`),
  'datachannel.node': iceBinary,
  // On macOS node-pty starts processes through it.
  ...(process.platform === 'darwin' && {
    'spawn-helper': () => require.resolve(`@lydell/node-pty-${platform}/spawn-helper`),
  }),
};

/** Sessions work without UDP, but not without terminals. */
const optional = new Set(['datachannel.node']);

/** See ssh/protocol/packet-limit.ts. */
const packetLimit: Plugin = {
  name: 'packet limit',
  setup({ onLoad }) {
    onLoad({ filter: limitedFile }, async ({ path }) => ({
      contents: withPacketLimit(await readFile(path, 'utf8')),
    }));
    onLoad({ filter: /\/packet-limit-hook\.ts$/ }, () => ({ contents: '' }));
  },
};

/** How long the files of earlier bundles are kept. */
const keepOldMs = 3600_000;

/** Null if it is not installed. */
function foundAt(path: () => string): string | null {
  try {
    return existsSync(path()) ? path() : null;
  } catch {
    return null;
  }
}

/** Builds the bundle and returns the path of `agent.mjs`. Tests pass `into`. */
export async function bundleAgent({ into = join(folder, 'dist') }: { into?: string } = {}): Promise<string> {
  const result = await build({
    ...programBundle,
    absWorkingDir: folder,
    entryPoints: {
      agent: 'main.ts',
      'keep-awake': 'activity/leases/command.ts',
      // What a container of the docker provider starts with, and the agent's unit of the incus provider.
      enter: '../server/providers/prepare/enter.ts',
      // Maintains the kernel of a virtual machine whose template has a section for it.
      noded: '../noded/main.ts',
    },
    outdir: into,
    chunkNames: 'agent-[name]-[hash]',
    legalComments: 'none',
    metafile: true,
    write: false,
    plugins: [...programBundle.plugins, packetLimit],
  });
  await mkdir(into, { recursive: true });
  const files = new Map<string, () => Promise<void>>();
  const add = (name: string, write: (draft: string) => Promise<void>) => {
    files.set(name, async () => {
      // Renamed into place, the entry last: servers may start agents from here at any time.
      const draft = join(into, `${name}.${process.pid}`);
      await write(draft);
      await rename(draft, join(into, name));
    });
  };
  for (const [name, path] of Object.entries(native)) {
    const found = optional.has(name) ? foundAt(path) : path();
    if (found) add(name, (draft) => copyFile(found, draft));
  }
  const outputs = result.outputFiles.map((file) => ({ ...file, name: file.path.slice(into.length + 1) }));
  for (const { name, contents } of outputs.filter(({ name }) => name !== 'agent.mjs')) {
    add(name, (draft) => writeFile(draft, contents));
  }
  const entry = outputs.find(({ name }) => name === 'agent.mjs')!;
  add('agent.mjs', (draft) => writeFile(draft, entry.contents));
  // For freshBundle. Written last, so that an interrupted build is repeated.
  const inputs = JSON.stringify(Object.keys(result.metafile.inputs));
  add('inputs.json', (draft) => writeFile(draft, inputs));
  for (const write of files.values()) await write();
  for (const name of await readdir(into)) {
    if (files.has(name)) continue;
    const path = join(into, name);
    // Another build may run at the same time and rename its drafts or remove old files first.
    const found = await stat(path).catch(() => null);
    // An agent that starts right now may still load its old chunks.
    if (found && Date.now() - found.mtimeMs > keepOldMs) await rm(path, { force: true });
  }
  return join(into, 'agent.mjs');
}

/** Builds the bundle if it is missing or out of date. Returns the path of `agent.mjs`. */
export async function freshBundle(): Promise<string> {
  const path = join(folder, 'dist', 'agent.mjs');
  try {
    const built = (await stat(join(folder, 'dist/inputs.json'))).mtimeMs;
    const inputs = JSON.parse(readFileSync(join(folder, 'dist/inputs.json'), 'utf8')) as string[];
    const changed = await Promise.all(
      [...inputs, 'bundle.ts', '../tunnel/program-bundle.ts', '../package-lock.json'].map(
        async (input) => (await stat(join(folder, input))).mtimeMs > built,
      ),
    );
    if (existsSync(path) && !changed.includes(true)) return path;
  } catch {
    // There is none yet, or its sources have moved.
  }
  return bundleAgent();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const path = await bundleAgent();
  const { size } = await stat(path);
  process.stdout.write(`${path} (${Math.round(size / 1024)} kB)\n`);
}
