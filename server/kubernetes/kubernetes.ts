import { readFile } from 'node:fs/promises';
import { dayMs } from '@cde/api/durations.ts';
import { SettingsError } from '@cde/api/settings.ts';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import type { Database } from '../database/pool.ts';
import type { Keys } from '../identity/keys.ts';
import type { Logger } from '../log.ts';
import type { OrphanSource } from '../orphans/source.ts';
import { makeConnections } from '../providers/kubernetes/api/connect.ts';
import type { ClusterRecord } from '../providers/kubernetes/api/connections.ts';
import { makeKubernetesProvider } from '../providers/kubernetes/provider.ts';
import type { Provider } from '../providers/provider.ts';
import type { DryRun } from '../templates/routes.ts';
import { kubeCredentialRoutes } from './access/kube-credentials.ts';
import { builderRoutes } from './builder/routes.ts';
import { clusterRoutes } from './clusters/routes.ts';
import { makeClusterStore } from './clusters/store.ts';
import { makeKubernetesOrphans } from './orphans/source.ts';
import { makeDryRun } from './templates/dry-run.ts';

/** Everything of the server that knows Kubernetes: clusters, their orphans, access to namespaces, builders, dry runs. */
export interface Kubernetes {
  dryRun: DryRun;
  makeProvider(options: { satelliteUrls: () => Promise<string[]> }): Provider;
  orphans: OrphanSource;
  /** Adds the routes. */
  register(app: FastifyInstance): void;
  /** Adds the cluster that the settings name, and connects to all clusters. */
  connect(): Promise<void>;
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
  const orphans = makeKubernetesOrphans({
    database,
    connections,
    installation,
    homeGraceMs: config.homeGraceDays * dayMs,
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
    orphans,
    register(app) {
      clusterRoutes(app, { store, connections });
      kubeCredentialRoutes(app, { database, connections });
      builderRoutes(app, { database, connections });
    },
    async connect() {
      if (config.cluster)
        await store.ensureDefault(await clusterCredentials(config.cluster), config.clusterPublicEndpoint);
      await connections.refresh();
    },
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
