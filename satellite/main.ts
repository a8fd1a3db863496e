import { createRequire } from 'node:module';
import { describeSettings, SettingsError } from '@cde/api/settings.ts';
import { collectBuffersEarly } from '@cde/tunnel/gc.ts';
import { useProxyForFetch } from '@cde/tunnel/network/proxy.ts';
import { startSatellite } from './program.ts';
import { settings as definitions, readSettings } from './settings.ts';

const version: string = createRequire(import.meta.url)('../package.json').version;

/** Exit codes: 0 stopped by a signal, 1 failed, 2 invalid setting, 4 rejected by the server. */
async function main(): Promise<void> {
  const args = process.argv.slice(2);
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(
      `cde satellite ${version}\n\nSettings, as a flag or in the environment:\n${describeSettings(definitions, { flag: 16, env: 28 })}\n`,
    );
    return;
  }
  const settings = readSettings(args, process.env);
  collectBuffersEarly({ smallNewSpace: true });
  useProxyForFetch();
  let exitCode = 0;
  let stopping = false;
  const stop = (code: number) => {
    exitCode ||= code;
    if (stopping) return;
    stopping = true;
    void starting.then(async (satellite) => {
      // Ends the process even if something hangs.
      setTimeout(() => process.exit(1), settings.drainSeconds * 1000 + 10_000).unref();
      await satellite.stop();
      process.exit(exitCode);
    });
  };
  const starting = startSatellite({
    settings,
    version,
    onRejected(error) {
      process.stderr.write(
        `cde satellite: the server rejects this satellite (${error.status} ${error.code}): ${error.message}\n` +
          (error.body.detail ? `${error.body.detail}\n` : '') +
          `${error.body.hint ?? 'Add it again.'} To add one: cde satellite add NAME\n`,
      );
      stop(4);
    },
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop(0));
  // Started by `cde satellite start`, it ends with that process.
  if (process.send) process.on('disconnect', () => stop(0));
  const satellite = await starting;
  if (process.send) process.send({ type: 'listening', url: satellite.url });
}

main().catch((error: NodeJS.ErrnoException) => {
  if (error instanceof SettingsError) {
    process.stderr.write(`cde satellite: ${error.message}\n${error.hint}\n`);
    process.exit(2);
  }
  const inUse = error.code === 'EADDRINUSE' ? 'Choose another address: --listen\n' : '';
  process.stderr.write(`cde satellite: ${error.message}\n${inUse}`);
  process.exit(1);
});
