// Runs before `npm start` and `npm test`, on whatever Node the machine has: installs the pinned
// packages (Node 24 among them) when node_modules is missing or older than package-lock.json, and
// builds the dashboard and the agent's bundle where their sources have changed.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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
  const total = expectedPackages().length;
  const { status, output } = await showing(
    'Installing packages',
    'npm',
    ['ci', '--no-fund', '--no-audit', '--loglevel=error'],
    {
      // npm puts each package in its place as it arrives.
      progress: () => `${installedPackages()} of ${total} packages`,
      // npm itself is a script there.
      shell: process.platform === 'win32',
    },
  );
  if (status !== 0) {
    process.stderr.write(
      `${output}npm ci failed. Check that this machine reaches its npm registry (npm ping), then run the same command again.\n`,
    );
    process.exit(status ?? 1);
  }
  writeFileSync(stamp, wanted);
}

// Some versions of npm build ssh2's native ciphers, for the Node that they run on. Built for Node 24.19 or newer they
// abort the process when they are collected (mscdex/ssh2#1511): ssh2 does without, with Node's own.
rmSync(join(root, 'node_modules/ssh2/lib/protocol/crypto/build'), { recursive: true, force: true });

// What the server serves and starts: built by the Node that was just installed, when missing or out of date.
if (!process.argv.includes('--no-build')) {
  const own = join(root, 'node_modules', '.bin', 'node');
  const node = existsSync(own) ? own : process.execPath;
  for (const [title, script] of [
    ['Building the dashboard', 'scripts/build-web.mjs'],
    ['Building the agent', 'scripts/build-agent.mjs'],
  ]) {
    const { status, output } = await showing(title, node, [join(root, script), '--quiet']);
    if (output) process.stderr.write(output);
    if (status !== 0) process.exit(status ?? 1);
  }
}

/** The packages of package-lock.json that are installed directly into node_modules on this platform. */
function expectedPackages() {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const fits = (given, value) => {
    const list = [given ?? []].flat();
    const excludes = list.every((each) => each.startsWith('!'));
    return excludes ? !list.includes(`!${value}`) : list.includes(value);
  };
  return Object.entries(packages).filter(
    ([path, { os, cpu }]) =>
      /^node_modules\/(@[^/]+\/)?[^/]+$/.test(path) && fits(os, process.platform) && fits(cpu, process.arch),
  );
}

function installedPackages() {
  const folders = (path) => {
    try {
      return readdirSync(path).filter((name) => !name.startsWith('.'));
    } catch {
      return []; // Not there yet.
    }
  };
  const modules = join(root, 'node_modules');
  return folders(modules).reduce(
    (sum, name) => sum + (name.startsWith('@') ? folders(join(modules, name)).length : 1),
    0,
  );
}

/**
 * Runs a program and shows that it runs and for how long: on a terminal in one line that is rewritten, elsewhere in a
 * line each 10 s. A program that ends within a second is not mentioned.
 */
function showing(title, program, args, { progress = () => '', shell = false } = {}) {
  const started = performance.now();
  const live = process.stderr.isTTY === true && process.env.TERM !== 'dumb';
  let shown = false;
  const tell = (end) => {
    const seconds = Math.round((performance.now() - started) / 1000);
    const detail = end ? '' : progress();
    const line = `${title}${detail && `: ${detail}`}${end ? ' took' : ','} ${seconds} s`;
    process.stderr.write(live ? `\r\u001b[K${line}${end ? '\n' : ''}` : `${line}\n`);
    shown = true;
  };
  const first = setTimeout(tell, 1_000, false);
  const timer = setInterval(tell, live ? 1_000 : 10_000, false);
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], shell });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
  return new Promise((resolve) => {
    const end = (status, text) => {
      clearTimeout(first);
      clearInterval(timer);
      if (shown) tell(true);
      resolve({ status, output: text });
    };
    child.once('error', (error) => end(1, `${program} could not be started: ${error.message}\n`));
    child.once('close', (status) => end(status, output));
  });
}
