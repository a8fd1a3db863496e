import type { Orphan } from '@cde/api/clusters.ts';
import { Gauge, type Registry } from 'prom-client';
import { workspaces } from '../../database/schema.ts';
import type { Caller } from '../../http/actor.ts';
import { adoptOrphan } from './adopt.ts';
import { cleanOrphans, findOrphans, type OrphanDeps, type OrphanReport } from './orphans.ts';

/** Orphans are a matter of hours; a look costs one call for each cluster. */
const scanIntervalMs = 10 * 60_000;

export interface OrphanSweep {
  /** Of all clusters, or of one. */
  find(options?: { cluster?: string | undefined }): Promise<OrphanReport>;
  clean(options: {
    dryRun: boolean;
    cluster?: string | undefined;
    caller: Caller;
  }): ReturnType<typeof cleanOrphans>;
  /** Makes an orphaned home a kept one of a user. */
  adopt(
    which: { cluster: string; name: string; owner?: string | undefined },
    caller: Caller,
  ): ReturnType<typeof adoptOrphan>;
  /** Called each minute; looks when it is time, on one replica at a time. */
  runIfDue(): Promise<void>;
  /** How many there were at the last look, by cluster and kind. */
  counts(): { cluster: string; kind: Orphan['kind']; count: number }[];
}

/** `cde_orphans` of the last look. */
export function registerOrphanMetrics(registry: Registry, sweep: OrphanSweep): void {
  new Gauge({
    name: 'cde_orphans',
    help: 'Namespaces without a workspace, workspaces without a namespace, homes that nobody knows',
    labelNames: ['cluster', 'kind'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { count, ...labels } of sweep.counts()) this.set(labels, count);
    },
  });
}

/** Looks for orphans from time to time: reports them, or cleans them, as the installation's policy says. */
export function makeOrphanSweep(
  deps: OrphanDeps & { policy: 'report' | 'clean'; homeGraceMs: number },
): OrphanSweep {
  const { database, log, now } = deps;
  let lastScanMs = Number.NEGATIVE_INFINITY;
  let reportedKeys = new Set<string>();
  let items: Orphan[] = [];

  /**
   * A server that knows no workspace at all, and finds some on its clusters, is the old one on another database: what it
   * would clean is everybody's work.
   */
  async function isDatabaseEmpty(): Promise<boolean> {
    const [any] = await database.db.select({ id: workspaces.id }).from(workspaces).limit(1);
    return any === undefined;
  }

  function reportNew(found: Orphan[], empty: boolean): void {
    if (empty && found.length > 0 && items.length === 0)
      log.error(
        { namespaces: found.filter(({ kind }) => kind === 'namespace').length, homes: found.length },
        'The database is empty, and there are workspaces of this server on its clusters: is it another database than before? Nothing of them is cleaned. docs/backup.md says how to restore the database, or to adopt the homes: cde cluster orphans',
      );
    const keys = new Set(found.map(({ kind, cluster, name }) => `${kind} ${cluster}/${name}`));
    // Each is told once, not every ten minutes.
    const fresh = found.filter(({ kind, cluster, name }) => !reportedKeys.has(`${kind} ${cluster}/${name}`));
    if (fresh.length > 0)
      log.warn(
        {
          orphans: fresh.map(({ kind, cluster, name, reason, action }) => ({
            kind,
            cluster,
            name,
            reason,
            action,
          })),
        },
        `${fresh.length} orphans were found: cde cluster orphans`,
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
          // Reporting alone: what should run and has lost its namespace is looked at all the same.
          const empty = await isDatabaseEmpty();
          const found: OrphanReport | Awaited<ReturnType<typeof cleanOrphans>> =
            deps.policy === 'clean' && !empty
              ? await cleanOrphans(deps, { dryRun: false, caller })
              : await findOrphans(deps, { reconcile: true });
          reportNew(found.items, empty);
          // At the start clusters are not connected yet: an empty database is worth another look soon.
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
