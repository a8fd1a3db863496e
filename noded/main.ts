import { join } from 'node:path';
import { pino } from 'pino';
import { makeCluster } from './cluster.ts';
import { startDaemon } from './daemon.ts';
import { makeMetrics } from './metrics.ts';
import { makeModules } from './modules.ts';
import { makeKubeNode } from './node.ts';
import { openOriginals } from './originals.ts';
import { type Change, makeReconciler } from './reconcile.ts';
import { restore } from './restore.ts';
import { serve } from './serve.ts';
import { readRestoreSettings, readSettings, SettingsError } from './settings.ts';
import { makeSource } from './source.ts';
import { makeSysctls } from './sysctls.ts';

/** If something else keeps changing a value, the log says so once a minute; the metrics count each time. */
const sameChangeMs = 60_000;

async function keepNode(): Promise<void> {
  const settings = readSettings(process.env);
  const log = pino({
    level: settings.CDE_LOG_LEVEL,
    base: { node: settings.CDE_NODE_NAME },
    timestamp: pino.stdTimeFunctions.isoTime,
  });
  const metrics = makeMetrics();
  const sysctls = makeSysctls(settings.CDE_NODED_SYSCTLS);
  const logged = new Map<string, number>();
  const onChange = (change: Change) => {
    metrics.changed(change);
    const key = `${change.what} ${change.sysctl}`;
    if (performance.now() - (logged.get(key) ?? Number.NEGATIVE_INFINITY) < sameChangeMs) return;
    logged.set(key, performance.now());
    const words = {
      set: 'A sysctl was set',
      repaired: 'A sysctl that somebody else had changed was set again',
      restored: 'A sysctl was put back',
      'given-up': 'A sysctl that somebody else changed since is left as it is',
    };
    log.info(change, words[change.what]);
  };
  const daemon = startDaemon({
    source: makeSource({
      file: settings.CDE_NODED_PROFILES,
      lastGood: join(settings.CDE_NODED_DATA_DIR, 'profiles.yaml'),
    }),
    reconciler: makeReconciler({
      sysctls,
      modules: makeModules({ loaded: '/sys/module' }),
      originals: openOriginals(join(settings.CDE_NODED_DATA_DIR, 'originals.json'), sysctls.bootId()),
      onChange,
    }),
    node: makeKubeNode(makeCluster(settings.CDE_NODED_API), settings.CDE_NODE_NAME),
    log,
    onPass: metrics.passed,
  });
  const server = await serve(settings.CDE_NODED_LISTEN, { ...daemon, metrics: metrics.text });
  log.info({ listen: settings.CDE_NODED_LISTEN }, 'noded maintains this node');
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      // A modprobe that hangs must not keep the process alive.
      setTimeout(() => process.exit(1), 25_000).unref();
      void daemon.stop().then(() => {
        server.close();
        server.closeAllConnections();
        log.info({}, 'noded ends; the kernel stays as it is');
      });
    });
}

async function putAllBack(): Promise<void> {
  const settings = readRestoreSettings(process.env);
  const [namespace, configMap] = settings.CDE_NODED_CONFIG_MAP.split('/') as [string, string];
  await restore({
    cluster: makeCluster(settings.CDE_NODED_API),
    namespace,
    configMap,
    seconds: settings.CDE_NODED_RESTORE_SECONDS,
    say: (line) => console.log(line),
  });
}

/** `noded` maintains this node until it is told to end. `noded restore` restores all nodes, once. */
const [command, ...rest] = process.argv.slice(2);
try {
  if (rest.length > 0 || (command !== undefined && command !== 'restore'))
    throw new SettingsError('Usage: noded, or noded restore.');
  await (command === 'restore' ? putAllBack() : keepNode());
} catch (error) {
  process.stderr.write(`noded: ${(error as Error).message}\n`);
  process.exit(error instanceof SettingsError ? 2 : 1);
}
