import type { StopCause } from '@cde/api/activity.ts';
import { sql } from 'drizzle-orm';
import type { Queryable } from '../database/pool.ts';
import { type ActivityRow, insertEvents, readActivity, writeActivity } from './activity-store.ts';
import { signalEvent } from './sentences.ts';

export interface WorkspaceLifecycle {
  onStarted(tx: Queryable, workspaceId: string, start: { by: string; reason: string }): Promise<void>;
  /** `cause`: the policy that stopped it, if one did. */
  onStopped(
    tx: Queryable,
    workspaceId: string,
    stop: { by: string; reason: string; cause?: StopCause | undefined },
  ): Promise<void>;
  onDormant(tx: Queryable, workspaceId: string, reason: string): Promise<void>;
}

/** Records starts and stops in the timeline, and forgets what was known of the run that has ended. */
export function makeLifecycle(deps: {
  now: () => Date;
  /** When the schedule of a stopped workspace starts it next. */
  nextStart: (row: ActivityRow) => Promise<number | null>;
}): WorkspaceLifecycle {
  const { now, nextStart } = deps;
  return {
    async onStarted(tx, workspaceId, { by, reason }) {
      const at = now().getTime();
      const [row] = await readActivity(tx, sql`WHERE w.id = ${workspaceId}`);
      await writeActivity(tx, workspaceId, {
        startsAt: null,
        dormantAt: null,
        archivedAt: null,
        deletesAt: null,
        held: false,
        ...(by !== 'system' && { personAt: at }),
      });
      await insertEvents(tx, [
        {
          workspaceId,
          at,
          kind: 'started',
          by,
          nodePool: row?.nodePool ?? null,
          text: by === 'system' ? `started: ${reason}` : `started by ${by}`,
        },
      ]);
    },
    async onStopped(tx, workspaceId, { by, reason, cause }) {
      const at = now().getTime();
      const [row] = await readActivity(tx, sql`WHERE w.id = ${workspaceId}`);
      if (!row) return;
      const stretches = Object.entries(row.signals) as [
        keyof typeof row.signals,
        { since: number; at: number },
      ][];
      await insertEvents(tx, [
        ...stretches.map(([signal, stretch]) => signalEvent(workspaceId, { signal, ...stretch })),
        {
          workspaceId,
          at,
          kind: 'stopped',
          by,
          nodePool: row.nodePool,
          ...(cause && { cause }),
          text: reason || `stopped by ${by}`,
        },
      ]);
      await writeActivity(tx, workspaceId, {
        buildId: null,
        runStartedAt: null,
        agentStartedAt: null,
        signals: {},
        reportedAt: null,
        decision: null,
        stopsAt: null,
        pendingStop: null,
        held: false,
        warnedMs: null,
        startsAt: await nextStart(row),
      });
    },
    async onDormant(tx, workspaceId, reason) {
      const at = now().getTime();
      await writeActivity(tx, workspaceId, { dormantAt: at, startsAt: null });
      await insertEvents(tx, [{ workspaceId, at, kind: 'dormant', cause: 'dormant', text: reason }]);
    },
  };
}

/** A person needs it: the days without one count from now, it is in lists again, and an announced deletion is cancelled. */
export async function recordPersonsUse(
  tx: Queryable,
  workspaceId: string,
  { by, at }: { by: string; at: number },
): Promise<void> {
  const [row] = await readActivity(tx, sql`WHERE w.id = ${workspaceId}`);
  if (!row) return;
  await writeActivity(tx, workspaceId, {
    personAt: at,
    ...(row.archivedAt !== null && { archivedAt: null }),
    ...(row.deletesAt !== null && { deletesAt: null, held: false }),
  });
  if (row.deletesAt !== null)
    await insertEvents(tx, [
      {
        workspaceId,
        at,
        kind: 'deletion-cancelled',
        cause: 'delete',
        by,
        text: `will not be deleted: ${by} needs it`,
      },
    ]);
}
