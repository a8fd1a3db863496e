import type { AdoptedHome, Orphan } from '@cde/api/clusters.ts';
import { Problem } from '@cde/api/problem.ts';
import { sql } from 'drizzle-orm';
import { Gauge, type Registry } from 'prom-client';
import type { Database } from '../database/pool.ts';
import { workspaces } from '../database/schema.ts';
import type { Caller } from '../http/actor.ts';
import type { Logger } from '../log.ts';
import type { AdoptRequest, OrphanReport, OrphanSelection, OrphanSource } from './source.ts';

/** Orphans matter within hours, and a scan costs one call per cluster. */
const scanIntervalMs = 10 * 60_000;

export interface OrphanSweep {
  find(selection: OrphanSelection): Promise<OrphanReport>;
  clean(options: Parameters<OrphanSource['clean']>[0]): ReturnType<OrphanSource['clean']>;
  /**
   * Makes an orphaned home a retained home of a user.
   * @throws orphan-not-found, user-not-found, template-not-found, cluster-away
   */
  adopt(request: AdoptRequest, caller: Caller): Promise<AdoptedHome[]>;
  /** Called each minute; scans when a scan is due, on one replica at a time. */
  runIfDue(): Promise<void>;
  /** How many the last scan found, by place and kind. */
  counts(): { cluster: string; provider: string; kind: Orphan['kind']; count: number }[];
}

/** Exports the result of the last scan as `cde_orphans`. */
export function registerOrphanMetrics(registry: Registry, sweep: OrphanSweep): void {
  new Gauge({
    name: 'cde_orphans',
    help: 'What is on clusters and engines without a workspace, and workspaces without a namespace',
    labelNames: ['cluster', 'provider', 'kind'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { count, ...labels } of sweep.counts()) this.set(labels, count);
    },
  });
}

/** Scans for orphans regularly, and reports or deletes them according to `CDE_ORPHANS`. */
export function makeOrphanSweep({
  database,
  sources,
  policy,
  log,
  now,
}: {
  database: Database;
  sources: OrphanSource[];
  policy: 'report' | 'clean';
  now: () => Date;
  log: Logger;
}): OrphanSweep {
  let lastScanMs = Number.NEGATIVE_INFINITY;
  let reportedKeys = new Set<string>();
  let items: Orphan[] = [];
  /** Adoptions of this replica follow each other, so that those that wait do not take all connections. */
  let adopting: Promise<unknown> = Promise.resolve();

  /**
   * A server with an empty database that finds workspaces on its platforms was started on the wrong database. Deleting
   * those orphans would delete everybody's work.
   */
  async function isDatabaseEmpty(): Promise<boolean> {
    const [any] = await database.db.select({ id: workspaces.id }).from(workspaces).limit(1);
    return any === undefined;
  }

  async function find(options: Parameters<OrphanSource['find']>[0]): Promise<OrphanReport> {
    const found = await Promise.all(sources.map((source) => source.find(options)));
    return {
      items: found.flatMap((report) => report.items),
      unseen: found.flatMap(({ unseen }) => unseen),
    };
  }

  async function clean(options: Parameters<OrphanSource['clean']>[0]) {
    const found = await Promise.all(sources.map((source) => source.clean(options)));
    return { items: found.flatMap((report) => report.items), done: !options.dryRun };
  }

  async function adopt(request: AdoptRequest, caller: Caller): Promise<AdoptedHome[]> {
    for (const source of sources) {
      const adopted = await source.adopt(request, caller);
      if (adopted) return adopted;
    }
    throw new Problem('orphan-not-found', `There is no orphaned home ${request.name}.`, {
      detail: 'It has a workspace, was already adopted, or is less than an hour old.',
      actions: [{ kind: 'list-orphans' }],
    });
  }

  function reportNew(found: Orphan[], empty: boolean): void {
    if (empty && found.length > 0 && items.length === 0)
      log.error(
        {
          compute: found.filter(({ action }) => action === 'delete').length,
          homes: found.filter(({ kind }) => kind === 'home').length,
        },
        'The database is empty, but there are workspaces of this server. Is this the right database? Nothing is deleted. docs/backup.md describes how to restore the database or adopt the homes: cde cluster orphans',
      );
    const keys = new Set(found.map(keyOf));
    // Each orphan is reported once, not at every scan.
    const newOrphans = found.filter((orphan) => !reportedKeys.has(keyOf(orphan)));
    if (newOrphans.length > 0)
      log.warn(
        {
          orphans: newOrphans.map(({ kind, provider, cluster, name, reason, action }) => ({
            kind,
            provider,
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
    find,
    clean,
    adopt(request, caller) {
      const adopted = adopting.then(() =>
        database.db.transaction(async (tx) => {
          // Otherwise two users could be given the same home.
          await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtextextended('adopted homes', 3))`);
          return adopt(request, caller);
        }),
      );
      adopting = adopted.catch(() => {});
      return adopted;
    },
    async runIfDue() {
      if (now().getTime() - lastScanMs < scanIntervalMs) return;
      const client = await database.pool.connect();
      let isClean = false;
      try {
        const { rows } = await client.query<{ got: boolean }>(
          "SELECT pg_try_advisory_lock(hashtextextended('orphans', 3)) AS got",
        );
        if (!rows[0]?.got) {
          isClean = true;
          return;
        }
        lastScanMs = now().getTime();
        const caller = { actor: { kind: 'system' }, requestId: 'orphan-sweep', ip: null } as const;
        try {
          // Workspaces that lost their namespace are reconciled even if the policy is only to report.
          const empty = await isDatabaseEmpty();
          const found =
            policy === 'clean' && !empty
              ? await clean({ dryRun: false, caller })
              : await find({ reconcile: true });
          reportNew(found.items, empty);
          if (policy === 'report' && !empty) await clean({ dryRun: false, caller, onlyCaches: true });
          // At startup the clusters are not connected yet; with an empty database, scan again soon.
          if (empty && 'unseen' in found && found.unseen.length > 0) lastScanMs = Number.NEGATIVE_INFINITY;
        } finally {
          await client.query("SELECT pg_advisory_unlock(hashtextextended('orphans', 3))");
        }
        isClean = true;
      } finally {
        client.release(!isClean);
      }
    },
    counts() {
      const counts = new Map<string, ReturnType<OrphanSweep['counts']>[number]>();
      for (const { cluster, provider, kind } of items) {
        const key = `${provider}/${cluster} ${kind}`;
        const one = counts.get(key) ?? { cluster: cluster ?? '', provider, kind, count: 0 };
        one.count++;
        counts.set(key, one);
      }
      return [...counts.values()];
    },
  };
}

const keyOf = ({ kind, provider, cluster, name }: Orphan) => `${kind} ${provider}/${cluster}/${name}`;
