import type { Orphan } from '@cde/api/clusters.ts';
import { Gauge, type Registry } from 'prom-client';
import { workspaces } from '../../database/schema.ts';
import type { Caller } from '../../http/actor.ts';
import { adoptOrphan } from './adopt.ts';
import { cleanOrphans, findOrphans, type OrphanDeps, type OrphanReport } from './orphans.ts';

/** Orphans matter within hours, and a scan costs one call per cluster. */
const scanIntervalMs = 10 * 60_000;

export interface OrphanSweep {
  /** On all clusters, or on one. */
  find(options?: { cluster?: string | undefined }): Promise<OrphanReport>;
  clean(options: {
    dryRun: boolean;
    cluster?: string | undefined;
    caller: Caller;
  }): ReturnType<typeof cleanOrphans>;
  /** Makes an orphaned home a retained home of a user. */
  adopt(
    which: { cluster: string; name: string; owner?: string | undefined },
    caller: Caller,
  ): ReturnType<typeof adoptOrphan>;
  /** Called each minute; scans when a scan is due, on one replica at a time. */
  runIfDue(): Promise<void>;
  /** How many the last scan found, by cluster and kind. */
  counts(): { cluster: string; kind: Orphan['kind']; count: number }[];
}

/** Exports the result of the last scan as `cde_orphans`. */
export function registerOrphanMetrics(registry: Registry, sweep: OrphanSweep): void {
  new Gauge({
    name: 'cde_orphans',
    help: 'Namespaces without a workspace, workspaces without a namespace, homes without an owner',
    labelNames: ['cluster', 'kind'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { count, ...labels } of sweep.counts()) this.set(labels, count);
    },
  });
}

/** Scans for orphans regularly, and reports or deletes them according to `CDE_ORPHANS`. */
export function makeOrphanSweep(
  deps: OrphanDeps & { policy: 'report' | 'clean'; homeGraceMs: number },
): OrphanSweep {
  const { database, log, now } = deps;
  let lastScanMs = Number.NEGATIVE_INFINITY;
  let reportedKeys = new Set<string>();
  let items: Orphan[] = [];

  /**
   * A server with an empty database that finds workspaces on its clusters was started on the wrong database. Deleting
   * those orphans would delete everybody's work.
   */
  async function isDatabaseEmpty(): Promise<boolean> {
    const [any] = await database.db.select({ id: workspaces.id }).from(workspaces).limit(1);
    return any === undefined;
  }

  function reportNew(found: Orphan[], empty: boolean): void {
    if (empty && found.length > 0 && items.length === 0)
      log.error(
        { namespaces: found.filter(({ kind }) => kind === 'namespace').length, homes: found.length },
        'The database is empty, but the clusters have workspaces of this server. Is this the right database? Nothing is deleted. docs/backup.md describes how to restore the database or adopt the homes: cde cluster orphans',
      );
    const keys = new Set(found.map(({ kind, cluster, name }) => `${kind} ${cluster}/${name}`));
    // Each orphan is reported once, not at every scan.
    const newOrphans = found.filter(
      ({ kind, cluster, name }) => !reportedKeys.has(`${kind} ${cluster}/${name}`),
    );
    if (newOrphans.length > 0)
      log.warn(
        {
          orphans: newOrphans.map(({ kind, cluster, name, reason, action }) => ({
            kind,
            cluster,
            name,
            reason,
            action,
          })),
        },
        `Found ${newOrphans.length} orphans; list them with cde cluster orphans`,
      );
    reportedKeys = keys;
    items = found;
  }

  return {
    find: (options) => findOrphans(deps, options),
    clean: (options) => cleanOrphans(deps, options),
    adopt: (which, caller) => adoptOrphan(deps, which, caller),
    async runIfDue() {
      if (now().getTime() - lastScanMs < scanIntervalMs) return;
      const client = await database.pool.connect();
      let clean = false;
      try {
        const { rows } = await client.query<{ got: boolean }>(
          "SELECT pg_try_advisory_lock(hashtextextended('orphans', 3)) AS got",
        );
        if (!rows[0]?.got) {
          clean = true;
          return;
        }
        lastScanMs = now().getTime();
        const caller = { actor: { kind: 'system' }, requestId: 'orphan-sweep', ip: null } as const;
        try {
          // Workspaces that lost their namespace are reconciled even if the policy is only to report.
          const empty = await isDatabaseEmpty();
          const found: OrphanReport | Awaited<ReturnType<typeof cleanOrphans>> =
            deps.policy === 'clean' && !empty
              ? await cleanOrphans(deps, { dryRun: false, caller })
              : await findOrphans(deps, { reconcile: true });
          reportNew(found.items, empty);
          // At startup the clusters are not connected yet; with an empty database, scan again soon.
          if (empty && 'unseen' in found && found.unseen.length > 0) lastScanMs = Number.NEGATIVE_INFINITY;
        } finally {
          await client.query("SELECT pg_advisory_unlock(hashtextextended('orphans', 3))");
        }
        clean = true;
      } finally {
        client.release(!clean);
      }
    },
    counts() {
      const counts = new Map<string, { cluster: string; kind: Orphan['kind']; count: number }>();
      for (const { cluster, kind } of items) {
        const one = counts.get(`${cluster} ${kind}`) ?? { cluster, kind, count: 0 };
        one.count++;
        counts.set(`${cluster} ${kind}`, one);
      }
      return [...counts.values()];
    },
  };
}
