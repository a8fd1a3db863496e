import { readFile } from 'node:fs/promises';
import { SettingsError } from '@cde/api/settings.ts';
import type { FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';
import type { Config } from '../config.ts';
import type { Database } from '../database/pool.ts';
import type { Keys } from '../identity/keys.ts';
import type { Logger } from '../log.ts';
import { makeConnections } from '../providers/kubernetes/api/connect.ts';
import type { ClusterRecord } from '../providers/kubernetes/api/connections.ts';
import { makeKubernetesProvider } from '../providers/kubernetes/provider.ts';
import type { Provider } from '../providers/provider.ts';
import type { DryRun } from '../templates/routes.ts';
import { kubeCredentialRoutes } from './access/kube-credentials.ts';
import { builderRoutes } from './builder/routes.ts';
import { clusterRoutes } from './clusters/routes.ts';
import { makeClusterStore } from './clusters/store.ts';
import { orphanRoutes } from './orphans/routes.ts';
import { makeOrphanSweep, registerOrphanMetrics } from './orphans/sweep.ts';
import { makeDryRun } from './templates/dry-run.ts';

/** Everything of the server that knows Kubernetes: clusters, orphans, access to namespaces, builders, dry runs. */
export interface Kubernetes {
  dryRun: DryRun;
  makeProvider(options: { satelliteUrls: () => Promise<string[]> }): Provider;
  /** Adds the routes and the metrics. */
  register(app: FastifyInstance, metrics: Registry): void;
  /** Adds the cluster that the settings name, and connects to all clusters. */
  connect(): Promise<void>;
  /** Called each minute; scans for orphans when a scan is due. */
  sweepOrphans(): Promise<void>;
  close(): Promise<void>;
}

export function makeKubernetes({
  config,
  database,
  keys,
  installation,
  now,
  log,
}: {
  config: Config;
  database: Database;
  keys: Keys;
  /** Labels our objects on a cluster. */
  installation: string;
  now: () => Date;
  log: Logger;
}): Kubernetes {
  const store = makeClusterStore({ database, keys, now });
  const connections = makeConnections({ source: store.source, installation, log });
  const orphans = makeOrphanSweep({
    database,
    connections,
    installation,
    policy: config.orphans,
    homeGraceMs: config.homeGraceDays * 24 * 3600_000,
    now,
    log,
  });
  return {
    dryRun: makeDryRun(connections),
    makeProvider: ({ satelliteUrls }) =>
      makeKubernetesProvider({
        connections,
        installation,
        agentImage: config.agentImage,
        ...(config.agentCa && { agentCa: config.agentCa }),
        ...(config.builderImage && { builderImage: config.builderImage }),
        ...(config.nodePoolLabel && { nodePoolLabel: config.nodePoolLabel }),
        agentUrls: satelliteUrls,
        log,
        now,
      }),
    register(app, metrics) {
      registerOrphanMetrics(metrics, orphans);
      clusterRoutes(app, { store, connections });
      orphanRoutes(app, orphans);
      kubeCredentialRoutes(app, { database, connections });
      builderRoutes(app, { database, connections });
    },
    async connect() {
      if (config.cluster)
        await store.ensureDefault(await clusterCredentials(config.cluster), config.clusterPublicEndpoint);
      await connections.refresh();
    },
    sweepOrphans: orphans.runIfDue,
    close: () => connections.close(),
  };
}

/** Reads the credentials that `CDE_CLUSTER` names. */
async function clusterCredentials(setting: string): Promise<ClusterRecord['credentials']> {
  if (setting === 'in-cluster') return { kind: 'in-cluster' };
  try {
    return { kind: 'kubeconfig', text: await readFile(setting, 'utf8') };
  } catch (error) {
    throw new SettingsError(
      `CDE_CLUSTER names ${setting}, which cannot be read: ${(error as Error).message}.`,
      'Give the path of a kubeconfig, or in-cluster.',
    );
  }
}
