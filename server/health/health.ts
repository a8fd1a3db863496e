import { rootFindings, runChecks } from '@cde/api/checks.ts';
import type { Health } from '@cde/api/health.ts';
import { and, inArray, isNotNull, isNull, lt, lte, sql } from 'drizzle-orm';
import { makeCoalescer } from '../database/coalesce.ts';
import { healthFindings } from '../database/health-schema.ts';
import type { Database, Queryable } from '../database/pool.ts';
import { type HealthSources, healthChecks, type TargetedFinding } from './checks.ts';

/** Announced after this time, because much that is wrong for a moment repairs itself. */
const announceAfterMs = 120_000;
/** Over when it was not seen for this long: what comes and goes is one finding. */
const overAfterMs = 300_000;

const keyOf = ({ code, target }: TargetedFinding) => (target === null ? code : `${code}:${target}`);

/** Checks the installation, and remembers since when something is wrong and what was announced. */
export function makeHealth(deps: {
  sources: HealthSources;
  /** Delivers to the webhook, in the transaction that notes it. */
  announce: (
    tx: Queryable,
    alerts: {
      kind: 'health-raised' | 'health-resolved';
      key: string;
      since: Date;
      finding: TargetedFinding;
    }[],
  ) => Promise<void>;
}) {
  const { sources, announce } = deps;
  const { db }: Database = sources.database;
  const coalesce = makeCoalescer<Awaited<ReturnType<typeof check>>>();

  async function check() {
    const results = await runChecks(healthChecks(sources), { signal: new AbortController().signal });
    const all = rootFindings(results.flatMap(({ findings }) => findings)) as TargetedFinding[];
    // Several checks can find the same.
    const found = [...new Map(all.map((one) => [`${keyOf(one)} ${one.message}`, one])).values()];
    return {
      checks: results.map(({ findings: _, ...result }) => result),
      // A check that could not be made says so by itself.
      findings: found.map((one) => ({ ...one, target: one.target ?? null })),
    };
  }

  return {
    async read(): Promise<Health> {
      const { checks, findings } = await coalesce('health', check);
      const at = sources.now();
      const since = new Map<string, Date>();
      try {
        const rows = await db
          .select({ key: healthFindings.key, since: healthFindings.since })
          .from(healthFindings);
        for (const row of rows) since.set(row.key, row.since);
      } catch {
        // The database is unreachable, which is among the findings.
      }
      return {
        at: at.toISOString(),
        checks,
        findings: findings.map((one) => ({
          ...one,
          since: (since.get(keyOf(one)) ?? at).toISOString(),
        })),
      };
    },

    /** Notes what is wrong now, and announces what stays and what is over. Every minute, on one replica. */
    async sweep(): Promise<void> {
      const { findings } = await check();
      const now = sources.now();
      await db.transaction(async (tx) => {
        if (findings.length > 0)
          await tx
            .insert(healthFindings)
            .values(
              [...new Map(findings.map((one) => [keyOf(one), one]))].map(([key, one]) => ({
                ...{ key, finding: one, since: now, seenAt: now },
              })),
            )
            .onConflictDoUpdate({
              target: healthFindings.key,
              set: { finding: sql`excluded.finding`, seenAt: sql`excluded.seen_at` },
            });
        const raised = await tx
          .update(healthFindings)
          .set({ announcedAt: now })
          .where(
            and(
              isNull(healthFindings.announcedAt),
              lte(healthFindings.since, new Date(now.getTime() - announceAfterMs)),
              // Not one that has been over for a while.
              inArray(healthFindings.key, [...findings.map(keyOf), '']),
              sql`${healthFindings.finding} ->> 'severity' <> 'info'`,
            ),
          )
          .returning();
        const over = lt(healthFindings.seenAt, new Date(now.getTime() - overAfterMs));
        const resolved = await tx
          .delete(healthFindings)
          .where(and(over, isNotNull(healthFindings.announcedAt)))
          .returning();
        await tx.delete(healthFindings).where(over);
        await announce(tx, [
          ...raised.map((row) => ({ ...row, kind: 'health-raised' as const })),
          ...resolved.map((row) => ({ ...row, kind: 'health-resolved' as const })),
        ]);
      });
    },
  };
}
