import type {
  ActivityEvent,
  AwakeCause,
  CleanupCause,
  IdleChoices,
  Signal,
  StopCause,
} from '@cde/api/activity.ts';
import type { CleanupPolicy } from '@cde/api/cleanup.ts';
import { sql } from 'drizzle-orm';
import {
  boolean,
  check,
  date,
  doublePrecision,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  text,
  uuid,
} from 'drizzle-orm/pg-core';
import { timestamptz } from './columns.ts';
import { workspaces } from './schema.ts';

/** A stretch of activity of one signal. Unix times in ms. */
export interface Stretch {
  since: number;
  at: number;
  by?: string;
}

/** The last decision of the policy. Unix times in ms. */
export interface StoredDecision {
  because: AwakeCause;
  stopsAt: number | null;
  cause: StopCause | null;
}

/** A stop that waits for the agent's answer. Unix times in ms. */
export interface PendingStop {
  id: string;
  cause: StopCause;
  decidedAt: number;
  /** When the activity occurred that the decision was based on: the agent vetoes if it has seen any since. */
  idleSince: number;
  /** The agent has answered that it is ready, and the stop was requested. */
  ready: boolean;
  /** The admin who let it go ahead although the brake held it back. Such stops do not count for the brake. */
  releasedBy?: string;
}

/** What is known about the activity of each workspace; migrations/0009_idle.sql describes the columns. */
export const workspaceActivity = pgTable(
  'workspace_activity',
  {
    workspaceId: uuid('workspace_id')
      .primaryKey()
      .references(() => workspaces.id, { onDelete: 'cascade' }),
    buildId: uuid('build_id'),
    runStartedAt: timestamptz('run_started_at'),
    agentStartedAt: timestamptz('agent_started_at'),
    signals: jsonb('signals').$type<Partial<Record<Signal, Stretch>>>().notNull().default({}),
    reportedAt: timestamptz('reported_at'),
    personAt: timestamptz('person_at'),
    decision: jsonb('decision').$type<StoredDecision>(),
    stopsAt: timestamptz('stops_at'),
    pendingStop: jsonb('pending_stop').$type<PendingStop>(),
    held: boolean('held').notNull().default(false),
    warnedMs: integer('warned_ms'),
    startsAt: timestamptz('starts_at'),
    dormantAt: timestamptz('dormant_at'),
    archivedAt: timestamptz('archived_at'),
    deletesAt: timestamptz('deletes_at'),
    choices: jsonb('choices').$type<IdleChoices>().notNull().default({}),
    choicesBy: text('choices_by'),
  },
  (t) => [
    index('workspace_activity_stops').on(t.stopsAt).where(sql`${t.stopsAt} IS NOT NULL`),
    index('workspace_activity_starts').on(t.startsAt).where(sql`${t.startsAt} IS NOT NULL`),
    index('workspace_activity_held').on(t.workspaceId).where(sql`${t.held}`),
    index('workspace_activity_dormant').on(t.workspaceId).where(sql`${t.dormantAt} IS NOT NULL`),
  ],
);

export const workspaceLeases = pgTable(
  'workspace_leases',
  {
    id: uuid('id').primaryKey(),
    workspaceId: uuid('workspace_id')
      .notNull()
      .references(() => workspaces.id, { onDelete: 'cascade' }),
    by: text('by').notNull(),
    reason: text('reason').notNull().default(''),
    createdAt: timestamptz('created_at').notNull().defaultNow(),
    expiresAt: timestamptz('expires_at').notNull(),
  },
  (t) => [index('workspace_leases_workspace').on(t.workspaceId, t.expiresAt)],
);

export const activityEvents = pgTable(
  'activity_events',
  {
    id: uuid('id').primaryKey(),
    workspaceId: uuid('workspace_id')
      .notNull()
      .references(() => workspaces.id, { onDelete: 'cascade' }),
    at: timestamptz('at').notNull(),
    until: timestamptz('until'),
    kind: text('kind').$type<ActivityEvent['kind']>().notNull(),
    signal: text('signal').$type<Signal>(),
    cause: text('cause').$type<CleanupCause>(),
    by: text('by'),
    /** Of starts and stops: where it ran. */
    nodePool: text('node_pool'),
    text: text('text').notNull(),
  },
  (t) => [
    index('activity_events_workspace').on(t.workspaceId, t.id.desc()),
    index('activity_events_kind').on(t.kind, t.at),
  ],
);

/** The bounds that admins set: one row. */
export const cleanupSettings = pgTable(
  'cleanup_settings',
  {
    id: integer('id').primaryKey().default(1),
    policy: jsonb('policy').$type<CleanupPolicy>().notNull(),
    updatedAt: timestamptz('updated_at').notNull().defaultNow(),
  },
  (t) => [check('cleanup_settings_id_check', sql`${t.id} = 1`)],
);

/** One row; migrations/0012_unused_workspaces.sql and migrations/0013_cleanup_days.sql describe the columns. */
export const cleanupState = pgTable(
  'cleanup_state',
  {
    id: integer('id').primaryKey().default(1),
    unusedCheckedAt: timestamptz('unused_checked_at'),
    daysUntil: date('days_until'),
  },
  (t) => [check('cleanup_state_id_check', sql`${t.id} = 1`)],
);

/** The report of cleanup for days that are over. */
export const cleanupDays = pgTable(
  'cleanup_days',
  {
    day: date('day').notNull(),
    templateId: uuid('template_id').notNull(),
    ownerId: uuid('owner_id').notNull(),
    cluster: text('cluster').notNull(),
    nodePool: text('node_pool').notNull(),
    runningHours: doublePrecision('running_hours').notNull(),
    stoppedHours: doublePrecision('stopped_hours').notNull(),
    stops: integer('stops').notNull(),
  },
  (t) => [primaryKey({ columns: [t.day, t.templateId, t.ownerId, t.cluster, t.nodePool] })],
);
