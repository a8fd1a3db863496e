// Runs before `npm start` and `npm test`, on whatever Node the machine has: installs the pinned
// packages (Node 24 among them) when node_modules is missing or older than package-lock.json, and
// builds the dashboard and the agent's bundle where their sources have changed.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stamp = join(root, 'node_modules', '.cde-installed');
const wanted = createHash('sha256')
  .update(readFileSync(join(root, 'package-lock.json')))
  .digest('hex');

// npm writes the hidden lock file last: a stamp without it is left over from an interrupted install.
const installed =
  existsSync(stamp) &&
  existsSync(join(root, 'node_modules', '.package-lock.json')) &&
  readFileSync(stamp, 'utf8') === wanted;

if (!installed) {
  process.stderr.write('Installing what is missing (npm ci)…\n');
  const npm = spawnSync('npm', ['ci', '--no-fund', '--no-audit', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    shell: process.platform === 'win32',
  });
  if (npm.status !== 0) {
    process.stderr.write(
      'npm ci failed. Check that this machine reaches its npm registry (npm ping), then run the same command again.\n',
    );
    process.exit(npm.status ?? 1);
  }
  writeFileSync(stamp, wanted);
}

// Some versions of npm build ssh2's native ciphers, for the Node that they run on. Built for Node 24.19 or newer they
// abort the process when they are collected (mscdex/ssh2#1511): ssh2 does without, with Node's own.
rmSync(join(root, 'node_modules/ssh2/lib/protocol/crypto/build'), { recursive: true, force: true });

// What the server serves and starts: built by the Node that was just installed, when missing or out of date.
if (!process.argv.includes('--no-build')) {
  const node = join(root, 'node_modules', '.bin', 'node');
  for (const script of ['scripts/build-web.mjs', 'scripts/build-agent.mjs']) {
    const built = spawnSync(existsSync(node) ? node : process.execPath, [join(root, script), '--quiet'], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    if (built.status !== 0) process.exit(built.status ?? 1);
  }
}
