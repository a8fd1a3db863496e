import type { Cluster } from '@cde/api/clusters.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, asc, count, eq, isNotNull, ne, or } from 'drizzle-orm';
import { v7 } from 'uuid';
import { type Database, isDuplicate, type Queryable } from '../../database/pool.ts';
import { clusters, workspaces } from '../../database/schema.ts';
import type { Caller, UserActor } from '../../http/actor.ts';
import { isUuid } from '../../http/cursor.ts';
import { writeAudit } from '../../identity/audit/audit.ts';
import type { Keys } from '../../identity/keys.ts';
import { KubeError } from '../../providers/kubernetes/api/client.ts';
import type { ClusterRecord, ClusterSource } from '../../providers/kubernetes/api/connections.ts';
import { makeKubeClient } from '../../providers/kubernetes/api/kube-client.ts';

type Row = typeof clusters.$inferSelect;

/** The settings of a cluster that an admin can change. */
interface ClusterSettings {
  region?: string | undefined;
  labels?: Record<string, string> | undefined;
  isDefault?: boolean | undefined;
  publicEndpoint?: string | null | undefined;
  kubeconfig?: string | undefined;
  inCluster?: boolean | undefined;
}

const matchesRef = (ref: string) =>
  isUuid(ref) ? or(eq(clusters.id, ref), eq(clusters.name, ref)) : eq(clusters.name, ref);

/** The clusters of the installation, in the database with sealed credentials. */
export function makeClusterStore({
  database,
  keys,
  now,
}: {
  database: Database;
  keys: Pick<Keys, 'seal' | 'open'>;
  now: () => Date;
}) {
  const { db } = database;

  async function find(tx: Queryable, ref: string): Promise<Row> {
    const [row] = await tx.select().from(clusters).where(matchesRef(ref));
    if (!row)
      throw new Problem('cluster-not-found', `There is no cluster ${ref}.`, {
        actions: [{ kind: 'list-clusters' }],
      });
    return row;
  }

  async function toCluster(tx: Queryable, row: Row): Promise<Cluster> {
    const [used] = await tx
      .select({ count: count() })
      .from(workspaces)
      .where(and(eq(workspaces.cluster, row.name), ne(workspaces.status, 'deleted')));
    return {
      id: row.id,
      name: row.name,
      region: row.region,
      labels: row.labels,
      isDefault: row.isDefault,
      credentials: row.credentials,
      endpoint: row.endpoint,
      publicEndpoint: row.publicEndpoint,
      state: row.state,
      reason: row.reason,
      version: row.version,
      seenAt: row.seenAt?.toISOString() ?? null,
      workspaces: used?.count ?? 0,
      createdAt: row.createdAt.toISOString(),
    };
  }

  /** Checks that the cluster accepts the credentials before they are stored. */
  async function checkCredentials(name: string, credentials: ClusterRecord['credentials']) {
    try {
      const client = await makeKubeClient({ name, credentials });
      try {
        const version = await client.version();
        // Everybody may read the version, but not the namespaces.
        await client.list({ apiVersion: 'v1', kind: 'Namespace', labels: 'cde.dev/managed=true' });
        return { version, endpoint: client.server };
      } finally {
        client.close();
      }
    } catch (error) {
      if (!(error instanceof KubeError) && credentials.kind !== 'in-cluster') throw error;
      const unreachable = error instanceof KubeError && error.unreachable;
      throw new Problem(
        'cluster-credentials-invalid',
        unreachable ? 'The cluster does not answer.' : 'The cluster cannot be used with these credentials.',
        {
          detail: error instanceof Error ? error.message : String(error),
          hint: 'docs/clusters.md describes how to create a service account and its kubeconfig.',
        },
      );
    }
  }

  const credentialsOf = (settings: ClusterSettings): ClusterRecord['credentials'] | null => {
    if (settings.kubeconfig !== undefined && settings.inCluster)
      throw new Problem(
        'bad-request',
        'A cluster has either a kubeconfig or is the one that the server runs in, not both.',
      );
    if (settings.kubeconfig !== undefined) return { kind: 'kubeconfig', text: settings.kubeconfig };
    return settings.inCluster ? { kind: 'in-cluster' } : null;
  };
  const sealCredentials = (credentials: ClusterRecord['credentials']) => ({
    credentials: credentials.kind,
    sealedKubeconfig: credentials.kind === 'kubeconfig' ? keys.seal(Buffer.from(credentials.text)) : null,
  });

  async function clearDefault(tx: Queryable): Promise<void> {
    await tx.update(clusters).set({ isDefault: false }).where(eq(clusters.isDefault, true));
  }

  const source: ClusterSource = {
    async list() {
      const rows = await db.select().from(clusters).orderBy(asc(clusters.name));
      return rows.map((row) => ({
        id: row.id,
        name: row.name,
        region: row.region,
        labels: row.labels,
        isDefault: row.isDefault,
        credentials:
          row.credentials === 'kubeconfig'
            ? { kind: 'kubeconfig', text: keys.open(row.sealedKubeconfig!).toString() }
            : { kind: 'in-cluster' },
        publicEndpoint: row.publicEndpoint,
        revision: row.revision,
      }));
    },
    async report(id, { state, reason, version, endpoint }) {
      await db
        .update(clusters)
        .set({
          state,
          reason,
          ...(endpoint && { endpoint }),
          ...(version && { version }),
          ...(state === 'ready' && { seenAt: now() }),
        })
        .where(eq(clusters.id, id));
    },
  };

  return {
    source,

    async list(): Promise<Cluster[]> {
      const rows = await db.select().from(clusters).orderBy(asc(clusters.name));
      return Promise.all(rows.map((row) => toCluster(db, row)));
    },

    async show(ref: string): Promise<Cluster> {
      return toCluster(db, await find(db, ref));
    },

    /** Throws `cluster-name-taken`, `cluster-credentials-invalid`. The first cluster is the default. */
    async add(caller: Caller<UserActor>, name: string, settings: ClusterSettings): Promise<Cluster> {
      const credentials = credentialsOf(settings);
      if (!credentials)
        throw new Problem('bad-request', 'A cluster needs credentials.', {
          hint: 'Give a kubeconfig, or use the cluster that the server runs in.',
        });
      const found = await checkCredentials(name, credentials);
      return db
        .transaction(async (tx) => {
          const [any] = await tx.select({ id: clusters.id }).from(clusters).limit(1);
          const isDefault = settings.isDefault ?? !any;
          if (isDefault) await clearDefault(tx);
          const [row] = await tx
            .insert(clusters)
            .values({
              id: v7(),
              name,
              region: settings.region ?? '',
              labels: settings.labels ?? {},
              isDefault,
              publicEndpoint: settings.publicEndpoint ?? null,
              ...sealCredentials(credentials),
              ...found,
              createdAt: now(),
            })
            .returning();
          await writeAudit(tx, caller, {
            action: 'cluster.add',
            targetType: 'cluster',
            targetId: row!.id,
            targetName: name,
            after: {
              endpoint: found.endpoint,
              region: row!.region,
              credentials: row!.credentials,
              isDefault,
            },
          });
          return toCluster(tx, row!);
        })
        .catch((error) => {
          if (!isDuplicate(error)) throw error;
          throw new Problem('cluster-name-taken', `There is already a cluster ${name}.`, {
            hint: 'Choose another name, or change the settings of that one.',
            actions: [{ kind: 'configure-cluster', cluster: name }],
          });
        });
    },

    async change(caller: Caller<UserActor>, ref: string, settings: ClusterSettings): Promise<Cluster> {
      const before = await find(db, ref);
      const credentials = credentialsOf(settings);
      const found = credentials && (await checkCredentials(before.name, credentials));
      return db.transaction(async (tx) => {
        if (settings.isDefault) await clearDefault(tx);
        const changes = {
          ...(settings.region !== undefined && { region: settings.region }),
          ...(settings.labels !== undefined && { labels: settings.labels }),
          ...(settings.isDefault !== undefined && { isDefault: settings.isDefault }),
          ...(settings.publicEndpoint !== undefined && { publicEndpoint: settings.publicEndpoint }),
        };
        const [row] = await tx
          .update(clusters)
          .set({
            ...changes,
            ...(credentials && { ...sealCredentials(credentials), ...found, revision: before.revision + 1 }),
          })
          .where(eq(clusters.id, before.id))
          .returning();
        if (!row) throw new Problem('cluster-not-found', `The cluster ${ref} was removed.`);
        await writeAudit(tx, caller, {
          action: 'cluster.change',
          targetType: 'cluster',
          targetId: row.id,
          targetName: row.name,
          before: { region: before.region, labels: before.labels, isDefault: before.isDefault },
          after: { ...changes, ...(credentials && { credentials: 'replaced' }) },
        });
        return toCluster(tx, row);
      });
    },

    async remove(caller: Caller<UserActor>, ref: string): Promise<void> {
      await db.transaction(async (tx) => {
        const row = await find(tx, ref);
        const { workspaces: used } = await toCluster(tx, row);
        const [retained] = await tx
          .select({ count: count() })
          .from(workspaces)
          .where(
            and(
              eq(workspaces.cluster, row.name),
              eq(workspaces.status, 'deleted'),
              isNotNull(workspaces.homeKeptUntil),
            ),
          );
        if (used > 0 || (retained?.count ?? 0) > 0)
          throw new Problem('cluster-in-use', `The cluster ${row.name} is in use.`, {
            detail: `It has ${used} workspaces and ${retained?.count ?? 0} retained homes.`,
            hint: 'Delete them first.',
          });
        await tx.delete(clusters).where(eq(clusters.id, row.id));
        await writeAudit(tx, caller, {
          action: 'cluster.remove',
          targetType: 'cluster',
          targetId: row.id,
          targetName: row.name,
          before: { endpoint: row.endpoint, region: row.region },
        });
      });
    },

    /**
     * Adds the cluster that the settings name as `default`, once. Its public endpoint follows the setting at every start.
     */
    async ensureDefault(credentials: ClusterRecord['credentials'], publicEndpoint?: string): Promise<void> {
      await db
        .insert(clusters)
        .values({
          id: v7(),
          name: 'default',
          isDefault: true,
          ...sealCredentials(credentials),
          createdAt: now(),
        })
        .onConflictDoNothing();
      if (publicEndpoint !== undefined)
        await db.update(clusters).set({ publicEndpoint }).where(eq(clusters.name, 'default'));
    },
  };
}

export type ClusterStore = ReturnType<typeof makeClusterStore>;
