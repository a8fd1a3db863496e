// npm run test:browser: the dashboard of the real server in a real Chromium. Arguments go to vitest.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const wanted = process.env.CDE_TEST_CHROMIUM;
const usual = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];
const chromium = wanted ?? usual.find((path) => existsSync(path));
if (!chromium || !existsSync(chromium)) {
  process.stderr.write(
    `test:browser needs Chromium: ${wanted ? `CDE_TEST_CHROMIUM=${wanted} does not exist` : 'install it (Debian: apt-get install chromium), or name it by CDE_TEST_CHROMIUM'}.\n`,
  );
  process.exit(1);
}
const node = join(root, 'node_modules', '.bin', 'node');
const run = (args, env = {}) =>
  spawnSync(existsSync(node) ? node : process.execPath, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  }).status ?? 1;
const built = run([join(root, 'scripts', 'build-web.mjs'), '--quiet']);
if (built !== 0) process.exit(built);
process.exit(
  run(
    [
      join(root, 'node_modules', 'vitest', 'vitest.mjs'),
      'run',
      '--config',
      'tests/browser/vitest.config.ts',
      ...process.argv.slice(2),
    ],
    { CDE_TEST_CHROMIUM: chromium },
  ),
);
