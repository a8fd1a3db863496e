import { randomUUID } from 'node:crypto';
import type { AgentManifest } from '@cde/api/agent.ts';
import type { Clock } from '@cde/tunnel/clock.ts';
import type { Activity } from './activity/activity.ts';
import { makeHomeWarning } from './activity/home-warning.ts';
import type { ToolSocket } from './activity/leases/socket.ts';
import type { OpenTerminals } from './activity/open-terminals.ts';
import { makeWarnings } from './activity/warnings.ts';
import { type OwnTraffic, readInterfaces } from './activity/work/network-traffic.ts';
import { makeWorkSampler } from './activity/work/work.ts';
import type { Hosting } from './hosting.ts';
import type { Network } from './network/direct.ts';
import { isRejection, type ServerClient } from './server/client.ts';
import type { Sessions } from './sessions.ts';
import { makeShutdown, type Shutdown } from './shutdown.ts';
import { reportConditions } from './stats/conditions.ts';
import { countingUsage } from './stats/home-size.ts';
import { type Reporter, reportStats } from './stats/report.ts';
import { makeStatsCollector } from './stats/stats.ts';
import { findUsageSource } from './stats/usage.ts';

/**
 * Reports activity and statistics, and does what the server answers: it warns of a stop and prepares for it. `onClose`
 * receives what must be called when the agent stops.
 */
export async function startReporting(options: {
  client: ServerClient;
  longPollClient: ServerClient;
  manifest: () => AgentManifest;
  /** Registers again. */
  renew: () => Promise<unknown>;
  hosting: Pick<Hosting, 'satellites' | 'onChange' | 'users'>;
  sessions: Sessions;
  activity: Activity;
  openTerminals: OpenTerminals;
  ownTraffic: Pick<OwnTraffic, 'bytes'>;
  tools: ToolSocket | undefined;
  network: Network;
  memoryLimit: number | null;
  runShutdownScript: Parameters<typeof makeShutdown>[0]['runScript'];
  deliverLog: () => Promise<void>;
  print: (text: string) => void;
  onClose: (close: () => void) => void;
  signal: AbortSignal;
  clock: Clock;
}): Promise<Reporter> {
  const { client, manifest, hosting, activity, network, signal } = options;
  const isShared = network.kind === 'shared';
  const renew = () => void options.renew().catch(() => {});
  let reporter: Reporter | undefined;
  const usage = await findUsageSource();
  const work = makeWorkSampler({
    activity,
    usage,
    // On the server's machine other processes may be visible, and share the control group.
    workspaceId: network.kind === 'whole' ? null : manifest().workspaceId,
    helpers: countingUsage,
    interfaceBytes: isShared ? () => null : readInterfaces,
    ownTraffic: options.ownTraffic.bytes,
  });
  const shutdown: Shutdown = makeShutdown({
    client,
    activity,
    work,
    runScript: options.runShutdownScript,
    print: options.print,
    deliverLog: options.deliverLog,
    signal,
    clock: options.clock,
  });
  const warnings = makeWarnings({
    workspace: () => manifest().workspace,
    openTerminals: options.openTerminals,
    activity,
    command: options.tools?.command,
    reportSoon: () => reporter?.reportSoon(),
  });
  options.onClose(warnings.close);
  if (manifest().hasShutdownScript) void shutdown.watch(options.longPollClient);
  options.onClose(
    await reportConditions({
      ...{ client, usage, memoryLimit: options.memoryLimit, process: randomUUID() },
      hasSessions: () => hosting.users().length > 0,
    }),
  );
  const homeWarning = makeHomeWarning({ openTerminals: options.openTerminals });
  const collector = await makeStatsCollector({
    usage,
    home: () => manifest().home,
    memoryLimit: options.memoryLimit,
    ownVolume: network.kind === 'whole',
    sessions: options.sessions,
    satellites: hosting.satellites,
  });
  reporter = reportStats({
    work,
    collector: {
      async sample() {
        const sample = await collector.sample();
        homeWarning.update(sample);
        return sample;
      },
    },
    activity,
    client,
    onIdle(idle) {
      warnings.update(idle);
      if (idle.shutdown) shutdown.handle(idle.shutdown);
    },
    isUrgent: () => shutdown.isPending,
    everyMs: () => manifest().statsEveryMs,
    satellites: { current: hosting.satellites, onChange: hosting.onChange },
    signal,
    onFailure(error) {
      // Registering shows whether a newer build has replaced this agent.
      if (isRejection(error)) renew();
    },
    onSatellites(now) {
      // By URL: each replica of the server names its embedded satellite differently.
      const addresses = (list: { url: string }[]) => JSON.stringify(list.map(({ url }) => url).sort());
      if (addresses(now) !== addresses(manifest().satellites)) renew();
    },
  });
  return reporter;
}
