import { activityEventKinds, type IdleChoices, type Signal } from '@cde/api/activity.ts';
import { dayMs } from '@cde/api/durations.ts';
import { type SQL, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import {
  activityEvents,
  type PendingStop,
  type StoredDecision,
  type Stretch,
} from '../database/idle-schema.ts';
import type { Queryable } from '../database/pool.ts';
import type { Lease } from './observations.ts';
import { enqueueDeliveries } from './webhook.ts';

/** A workspace with all that a decision needs. Unix times in ms. */
export interface ActivityRow {
  workspaceId: string;
  ownerId: string;
  /** `owner/name`. */
  ref: string;
  template: string;
  status: string;
  nodePool: string | null;
  templateVersionId: string;
  /** The build whose agent runs. */
  agentBuildId: string | null;
  /** The build whose agent reported the signals; another one's are void. */
  buildId: string | null;
  runStartedAt: number | null;
  agentStartedAt: number | null;
  signals: Partial<Record<Signal, Stretch>>;
  reportedAt: number | null;
  personAt: number | null;
  decision: StoredDecision | null;
  stopsAt: number | null;
  pendingStop: PendingStop | null;
  held: boolean;
  warnedMs: number | null;
  startsAt: number | null;
  dormantAt: number | null;
  archivedAt: number | null;
  /** When it will be deleted, as announced. */
  deletesAt: number | null;
  choices: IdleChoices;
  choicesBy: string | null;
  /** The one that expires last: the others change no decision. */
  leases: Lease[];
}

const ms = (column: string) => sql.raw(`(extract(epoch FROM ${column}) * 1000)::float8`);

/** Reads workspaces (`w`) with their activity (`a`), which may be missing. `extra`: the rest of the statement. */
export async function readActivity(db: Queryable, extra: SQL): Promise<ActivityRow[]> {
  const { rows } = await db.execute<ActivityRow & Record<string, unknown>>(sql`
    SELECT w.id AS "workspaceId", w.owner_id AS "ownerId", u.username || '/' || w.name AS ref, t.name AS template,
           w.status, w.node_pool AS "nodePool", w.template_version_id AS "templateVersionId", w.agent_build_id AS "agentBuildId",
           a.build_id AS "buildId", ${ms('a.run_started_at')} AS "runStartedAt",
           ${ms('a.agent_started_at')} AS "agentStartedAt", coalesce(a.signals, '{}') AS signals,
           ${ms('a.reported_at')} AS "reportedAt", ${ms('a.person_at')} AS "personAt", a.decision,
           ${ms('a.stops_at')} AS "stopsAt", a.pending_stop AS "pendingStop", coalesce(a.held, false) AS held,
           a.warned_ms AS "warnedMs", ${ms('a.starts_at')} AS "startsAt", ${ms('a.dormant_at')} AS "dormantAt",
           ${ms('a.archived_at')} AS "archivedAt", ${ms('a.deletes_at')} AS "deletesAt",
           coalesce(a.choices, '{}') AS choices, a.choices_by AS "choicesBy",
           coalesce((SELECT json_agg(last) FROM (SELECT l.id, ${ms('l.expires_at')} AS "expiresAt", l.by
                       FROM workspace_leases l WHERE l.workspace_id = w.id ORDER BY l.expires_at DESC LIMIT 1) last), '[]'
           ) AS leases
      FROM workspaces w
      JOIN users u ON u.id = w.owner_id
      JOIN templates t ON t.id = w.template_id
      LEFT JOIN workspace_activity a ON a.workspace_id = w.id
    ${extra}`);
  return rows;
}

/** Locks the rows until the transaction ends, in one order. If you need a workspace's own row too, lock that first. */
export async function lockActivity(tx: Queryable, workspaceIds: readonly string[]): Promise<void> {
  await tx.execute(sql`
    SELECT 1 FROM workspace_activity WHERE workspace_id = ANY(${sql.param(workspaceIds)}::uuid[])
     ORDER BY workspace_id FOR UPDATE`);
}

const pageSize = 500;

/** Every workspace that the condition selects, a page at a time. */
export async function* eachActivity(db: Queryable, condition: SQL): AsyncGenerator<ActivityRow> {
  for (let after = '00000000-0000-0000-0000-000000000000'; ; ) {
    const rows = await readActivity(
      db,
      sql`WHERE ${condition} AND w.id > ${after} ORDER BY w.id LIMIT ${pageSize}`,
    );
    yield* rows;
    if (rows.length < pageSize) return;
    after = rows.at(-1)!.workspaceId;
  }
}

/** The target of an audit entry. */
export const targetOf = ({ workspaceId, ref }: ActivityRow) => ({
  targetType: 'workspace' as const,
  targetId: workspaceId,
  targetName: ref.split('/')[1]!,
});

/** As the API has moments. */
export const toIso = (at: number | null) => (at === null ? null : new Date(at).toISOString());

export type ActivityChange = Partial<
  Pick<
    ActivityRow,
    | 'buildId'
    | 'runStartedAt'
    | 'agentStartedAt'
    | 'signals'
    | 'reportedAt'
    | 'personAt'
    | 'decision'
    | 'stopsAt'
    | 'pendingStop'
    | 'held'
    | 'warnedMs'
    | 'startsAt'
    | 'dormantAt'
    | 'archivedAt'
    | 'deletesAt'
    | 'choices'
    | 'choicesBy'
  >
>;

const columns: Record<keyof ActivityChange, { name: string; kind: 'time' | 'json' | 'plain' }> = {
  buildId: { name: 'build_id', kind: 'plain' },
  runStartedAt: { name: 'run_started_at', kind: 'time' },
  agentStartedAt: { name: 'agent_started_at', kind: 'time' },
  signals: { name: 'signals', kind: 'json' },
  reportedAt: { name: 'reported_at', kind: 'time' },
  personAt: { name: 'person_at', kind: 'time' },
  decision: { name: 'decision', kind: 'json' },
  stopsAt: { name: 'stops_at', kind: 'time' },
  pendingStop: { name: 'pending_stop', kind: 'json' },
  held: { name: 'held', kind: 'plain' },
  warnedMs: { name: 'warned_ms', kind: 'plain' },
  startsAt: { name: 'starts_at', kind: 'time' },
  dormantAt: { name: 'dormant_at', kind: 'time' },
  archivedAt: { name: 'archived_at', kind: 'time' },
  deletesAt: { name: 'deletes_at', kind: 'time' },
  choices: { name: 'choices', kind: 'json' },
  choicesBy: { name: 'choices_by', kind: 'plain' },
};

function encode(kind: 'time' | 'json' | 'plain', value: unknown): SQL {
  if (value === null || value === undefined) return sql`NULL`;
  if (kind === 'time') return sql`to_timestamp(${value as number} / 1000.0::float8)`;
  return kind === 'json' ? sql`${JSON.stringify(value)}::jsonb` : sql`${value}`;
}

/** Writes the given columns and leaves the others. */
export async function writeActivity(
  db: Queryable,
  workspaceId: string,
  change: ActivityChange,
): Promise<void> {
  const entries = Object.entries(change) as [keyof ActivityChange, unknown][];
  if (entries.length === 0) return;
  const names = entries.map(([key]) => sql.raw(columns[key].name));
  const values = entries.map(([key, value]) => encode(columns[key].kind, value));
  const sets = names.map((name) => sql`${name} = excluded.${name}`);
  await db.execute(sql`
    INSERT INTO workspace_activity (workspace_id, ${sql.join(names, sql`, `)})
    VALUES (${workspaceId}, ${sql.join(values, sql`, `)})
    ON CONFLICT (workspace_id) DO UPDATE SET ${sql.join(sets, sql`, `)}`);
}

type DecisionChange = Pick<ActivityChange, 'decision' | 'stopsAt' | 'pendingStop' | 'held' | 'warnedMs'>;

/** Writes what a sweep has decided, of many workspaces in one statement. */
export async function writeDecisions(
  db: Queryable,
  changes: ReadonlyMap<ActivityRow, DecisionChange>,
): Promise<void> {
  if (changes.size === 0) return;
  const values = [...changes].map(([row, change]) => {
    const { decision, stopsAt, pendingStop, held, warnedMs } = { ...row, ...change };
    return { id: row.workspaceId, decision, stopsAt, pendingStop, held, warnedMs };
  });
  await db.execute(sql`
    UPDATE workspace_activity a
       SET decision = v.decision, stops_at = to_timestamp(v."stopsAt" / 1000.0), pending_stop = v."pendingStop",
           held = v.held, warned_ms = v."warnedMs"
      FROM jsonb_to_recordset(${JSON.stringify(values)}::jsonb)
           AS v (id uuid, decision jsonb, "stopsAt" float8, "pendingStop" jsonb, held boolean, "warnedMs" integer)
     WHERE a.workspace_id = v.id`);
}

export type NewEvent = Pick<typeof activityEvents.$inferInsert, 'workspaceId' | 'kind' | 'text'> &
  Partial<Pick<typeof activityEvents.$inferInsert, 'signal' | 'cause' | 'by' | 'nodePool'>> & {
    /** Unix times in ms. */
    at: number;
    until?: number;
  };

export async function insertEvents(db: Queryable, events: readonly NewEvent[]): Promise<void> {
  if (events.length === 0) return;
  const rows = events.map(({ at, until, ...event }) => ({
    // In the order in which they are recorded.
    id: v7(),
    at: new Date(at),
    until: until === undefined ? null : new Date(until),
    ...event,
  }));
  await db.insert(activityEvents).values(rows);
  await enqueueDeliveries(db, rows);
}

/** How long the timeline goes back. */
const eventDays = 90;
/** The report needs starts and stops for longer: that of 400 days, and what a stop before them still saves. */
const reportDays = 430;

/** Deletes old events and leases; called by the sweep of the database. */
export async function removeOldActivity(db: Queryable, now: Date): Promise<void> {
  const daysAgo = (days: number) => new Date(now.getTime() - days * dayMs).toISOString();
  const forReport: readonly string[] = ['started', 'stopped'] satisfies NewEvent['kind'][];
  const others = activityEventKinds.filter((kind) => !forReport.includes(kind));
  for (const [kinds, before] of [
    [others, daysAgo(eventDays)],
    [forReport, daysAgo(reportDays)],
  ] as const)
    await db.execute(
      // By kind, because the index begins with it.
      sql`DELETE FROM activity_events WHERE id IN (
            SELECT id FROM activity_events WHERE kind = ANY(${sql.param(kinds)}::text[]) AND at < ${before} LIMIT 10000)`,
    );
  // A period without activity can be a year long, and begins at the end of a lease.
  await db.execute(sql`DELETE FROM workspace_leases WHERE expires_at < ${daysAgo(reportDays)}`);
}
