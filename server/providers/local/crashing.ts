/**
 * For tests: a server that only starts one workspace, and is then killed or told to stop it. argv: dataDir, skeleton,
 * cgroup, isolation, the fake agent's code, its tag, build id.
 */
import { silentLog } from '@cde/tunnel/log.ts';
import { makeLocalProvider } from './provider.ts';
import { drive, launchOf, makeSpec } from './testing.ts';

const [dataDir, skeleton, cgroup, isolation, code, tag, buildId] = process.argv.slice(2) as string[];
const provider = makeLocalProvider({
  dataDir: dataDir!,
  skeleton: skeleton!,
  cgroup: cgroup!,
  isolation: isolation as 'auto',
  agent: { command: [process.execPath, '-e', code!, tag!], readOnlyPaths: [] },
  log: silentLog,
});
await provider.isolation();
process.stdout.write('ready\n');
process.stdin.once('data', async () => {
  const move = await drive((state) =>
    provider.start(makeSpec('w1'), launchOf(buildId!), state, { log: () => {} }),
  );
  process.stdout.write(`${move.kind}\n`);
  process.stdin.once('data', async () => {
    const stopped = await drive((state) => provider.stop('w1', state, { log: () => {} }), move.state);
    process.stdout.write(`stopped: ${stopped.kind}\n`);
  });
});
