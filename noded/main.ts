import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { type Cluster, makeCluster } from './cluster.ts';
import { makeContention } from './contention.ts';
import { startDaemon } from './daemon.ts';
import { describeDryRun } from './dry-run.ts';
import { listInterfaces, makeInterfaceWatch } from './interfaces.ts';
import { makeMetrics } from './metrics.ts';
import { makeModules } from './modules.ts';
import { makeKubeNode } from './node.ts';
import { openOriginals } from './originals.ts';
import { makeOwnMachine } from './own-machine.ts';
import { readProfiles } from './profiles.ts';
import { type Change, makeReconciler } from './reconcile.ts';
import { restore } from './restore.ts';
import { serve } from './serve.ts';
import {
  readDryRunSettings,
  readMachineSettings,
  readRestoreSettings,
  readSettings,
  SettingsError,
} from './settings.ts';
import { makeSource } from './source.ts';
import { makePathOf, makeSysctls } from './sysctls.ts';
import { watchSysctls } from './watch.ts';
import { makeWriterSearch } from './writers.ts';

/** If something else keeps changing a value, the log says so once a minute; the metrics count each time. */
const sameChangeMs = 60_000;

async function keepNode({ isOwn = false } = {}): Promise<void> {
  const settings = isOwn ? readMachineSettings(process.env) : readSettings(process.env);
  const log = pino({
    level: settings.CDE_LOG_LEVEL,
    base: { node: settings.CDE_NODE_NAME },
    timestamp: pino.stdTimeFunctions.isoTime,
  });
  const metrics = makeMetrics();
  const root = settings.CDE_NODED_SYSCTLS;
  const sysctls = makeSysctls(root, settings.CDE_NODED_HUGE_PAGES);
  const pathOf = makePathOf(root, settings.CDE_NODED_HUGE_PAGES);
  const interfaces = makeInterfaceWatch(root);
  const contention = makeContention({
    findWriter: makeWriterSearch({
      folders: settings.CDE_NODED_SYSCTL_FOLDERS,
      // The chart mounts the node's folders there.
      shownAs: (path) => path.replace(/^\/host\//, '/'),
    }),
  });
  const logged = new Map<string, number>();
  const onChange = (change: Change) => {
    metrics.changed(change);
    const key = `${change.what} ${change.sysctl}`;
    for (const [old, at] of logged) if (performance.now() - at >= sameChangeMs) logged.delete(old);
    if (logged.has(key)) return;
    logged.set(key, performance.now());
    const words = {
      set: 'A sysctl was set',
      repaired: 'A sysctl that another program had changed was set again',
      restored: 'A sysctl was restored',
      'given-up': 'A sysctl that another program has changed since is left as it is',
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
      contention,
      interfacesOf: (family) => listInterfaces(root, family),
      onChange,
    }),
    contention,
    watchWrites(onWrite) {
      const watch = watchSysctls(onWrite);
      return {
        follow(names) {
          interfaces.follow(names);
          watch.follow(names.map(pathOf));
        },
        close: watch.close,
      };
    },
    hasNewInterfaces: interfaces.hasChanged,
    node: isOwn
      ? makeOwnMachine(settings.CDE_NODED_REPORT, (message) => log.info({}, message))
      : makeKubeNode(makeCluster(settings.CDE_NODED_API), settings.CDE_NODE_NAME),
    log,
    onPass: metrics.passed,
  });
  // The developer of a machine has no use for an open port.
  const server = isOwn ? null : await serve(settings.CDE_NODED_LISTEN, { ...daemon, metrics: metrics.text });
  log.info({ listen: server && settings.CDE_NODED_LISTEN }, 'noded maintains this node');
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      // A modprobe that hangs must not keep the process alive.
      setTimeout(() => process.exit(1), 25_000).unref();
      void daemon.stop().then(() => {
        server?.close();
        server?.closeAllConnections();
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

/** Prints what noded would change on this node. `file`: profiles to try; by default those that noded has. */
async function dryRun(file: string | undefined): Promise<void> {
  const settings = readDryRunSettings(process.env);
  const root = settings.CDE_NODED_SYSCTLS;
  const path = file ?? settings.CDE_NODED_PROFILES;
  const read = readProfiles(readFileSync(path === '-' ? 0 : path, 'utf8'));
  if ('faults' in read) throw new Error(`${path} is invalid.\n${read.faults.join('\n')}`);
  const { profiles } = read;
  const isSelective = profiles.some(({ nodeSelector }) => Object.keys(nodeSelector).length > 0);
  const labels = isSelective ? await readLabels(settings.CDE_NODE_NAME, settings.CDE_NODED_API) : null;
  const sysctls = makeSysctls(root, settings.CDE_NODED_HUGE_PAGES);
  const lines = await describeDryRun({
    profiles,
    labels,
    sysctls,
    originals: openOriginals(join(settings.CDE_NODED_DATA_DIR, 'originals.json'), sysctls.bootId()),
    loadedModules: '/sys/module',
    interfacesOf: (family) => listInterfaces(root, family),
  });
  console.log(lines.join('\n'));
}

/** Null if they are not known, because this is not a node of a cluster. */
async function readLabels(name: string | undefined, api: string | undefined) {
  let cluster: Cluster;
  try {
    cluster = makeCluster(api);
  } catch {
    return null;
  }
  return name === undefined ? null : (await makeKubeNode(cluster, name).get()).labels;
}

const usage = `Usage:
  noded                              maintain this node until told to end
  noded machine                      the same in a machine that is in no cluster
  noded --dry-run [--profiles FILE]  print what would change on this node, and change nothing; - reads standard input
  noded restore                      restore all nodes, once`;

async function run(args: string[]): Promise<void> {
  let parsed: { values: { 'dry-run'?: boolean; profiles?: string; help?: boolean }; positionals: string[] };
  try {
    parsed = parseArgs({
      args,
      allowPositionals: true,
      options: {
        'dry-run': { type: 'boolean' },
        profiles: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch {
    throw new SettingsError(usage);
  }
  const { values, positionals } = parsed;
  if (values.help) return console.log(usage);
  const [command, ...rest] = positionals;
  const isKnown = command === undefined || (['restore', 'machine'].includes(command) && !values['dry-run']);
  if (rest.length > 0 || !isKnown || (values.profiles !== undefined && !values['dry-run']))
    throw new SettingsError(usage);
  if (values['dry-run']) return dryRun(values.profiles);
  return command === 'restore' ? putAllBack() : keepNode({ isOwn: command === 'machine' });
}

try {
  await run(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`noded: ${(error as Error).message}\n`);
  process.exit(error instanceof SettingsError ? 2 : 1);
}
