// Builds web/dist when it is missing or its sources have changed; otherwise leaves at once (a few ms).
// `npm start` runs it after scripts/install.mjs. --force builds in any case, --quiet says nothing when all is well.
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const web = join(root, 'web');
const dist = join(web, 'dist');
const stamp = join(dist, '.inputs');

// In a fresh clone's `npm start`, the shell may have remembered the machine's own Node from before the install.
const node = join(root, 'node_modules', '.bin', 'node');
if (Number(process.versions.node.split('.')[0]) < 24 && existsSync(node)) {
  const again = spawnSync(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
  });
  process.exit(again.status ?? 1);
}

/** Everything that the built files depend on, hashed: sources, the contract, pinned packages, this script. */
function hashInputs() {
  const hash = createHash('sha256');
  const add = (path) =>
    hash
      .update(`${relative(root, path)}\0`)
      .update(readFileSync(path))
      .update('\0');
  const walk = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      if (['node_modules', 'dist', '.vite'].includes(entry.name) || /\.test\.tsx?$/.test(entry.name))
        continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) walk(path);
      else add(path);
    }
  };
  walk(web);
  walk(join(root, 'api'));
  add(join(root, 'package-lock.json'));
  add(fileURLToPath(import.meta.url));
  return hash.digest('hex');
}

/** Compressed once here rather than on each request; what does not shrink stays alone. */
function compress(folder) {
  for (const name of readdirSync(folder)) {
    if (!/\.(js|css|svg)$/.test(name)) continue;
    const path = join(folder, name);
    const bytes = readFileSync(path);
    if (bytes.length < 1024) continue;
    writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }));
    writeFileSync(
      `${path}.br`,
      brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 10 } }),
    );
  }
}

const inputs = hashInputs();
const force = process.argv.includes('--force');
if (!force && existsSync(stamp) && readFileSync(stamp, 'utf8') === inputs) process.exit(0);

const quiet = process.argv.includes('--quiet');
const started = performance.now();
if (!quiet) process.stderr.write('Building the dashboard…\n');
// Beside the old one and renamed at the end, so that a server that starts meanwhile finds either, whole.
const fresh = join(web, '.vite', `build-${randomBytes(6).toString('hex')}`);
mkdirSync(fresh, { recursive: true });
try {
  const { build } = await import('vite');
  await build({
    configFile: join(web, 'vite.config.ts'),
    logLevel: 'warn',
    build: { outDir: fresh, emptyOutDir: false },
  });
  compress(join(fresh, 'assets'));
  writeFileSync(join(fresh, '.inputs'), inputs);
  const old = `${fresh}-old`;
  if (existsSync(dist)) renameSync(dist, old);
  renameSync(fresh, dist);
  rmSync(old, { recursive: true, force: true });
} catch (error) {
  rmSync(fresh, { recursive: true, force: true });
  process.stderr.write(
    `The dashboard could not be built: ${error instanceof Error ? error.message : error}\nRun: node scripts/build-web.mjs --force\n`,
  );
  process.exit(1);
}
if (!quiet)
  process.stderr.write(`Built the dashboard in ${((performance.now() - started) / 1000).toFixed(1)} s.\n`);
