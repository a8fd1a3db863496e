import type { ClientEvent } from '@cde/api/diagnosis.ts';
import type { IncidentCause, IncidentKind, Segment } from '@cde/api/diagnosis-values.ts';
import { sql } from 'drizzle-orm';
import {
  bigint,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  real,
  text,
  unique,
  uuid,
} from 'drizzle-orm/pg-core';
import { oneOf, timestamptz } from './columns.ts';
import { users } from './identity-schema.ts';
import { workspaces } from './schema.ts';

// migrations/0014_diagnosis.sql and 0015_session_history.sql describe the columns.

const ofWorkspace = () =>
  uuid('workspace_id')
    .notNull()
    .references(() => workspaces.id, { onDelete: 'cascade' });
const ofUser = () =>
  uuid('user_id')
    .notNull()
    .references(() => users.id, { onDelete: 'cascade' });
const ofRecording = () =>
  uuid('recording_id')
    .notNull()
    .references(() => recordings.id, { onDelete: 'cascade' });

export const recordings = pgTable(
  'recordings',
  {
    id: uuid('id').primaryKey(),
    workspaceId: ofWorkspace(),
    userId: ofUser(),
    clientVersion: text('client_version').notNull(),
    platform: text('platform').notNull(),
    startedAt: timestamptz('started_at').notNull(),
    knownUntil: timestamptz('known_until').notNull(),
    lastBatch: integer('last_batch').notNull(),
    lastWindowAt: timestamptz('last_window_at').notNull(),
    eventCount: integer('event_count').notNull(),
    explainAt: timestamptz('explain_at'),
    endedAt: timestamptz('ended_at'),
    pathKind: text('path_kind'),
    pathVia: text('path_via'),
    region: text('region'),
    rolledUntil: timestamptz('rolled_until'),
    rollUpAt: timestamptz('roll_up_at'),
  },
  (t) => [
    index('recordings_workspace').on(t.workspaceId, t.userId),
    index('recordings_known_until').on(t.knownUntil),
    index('recordings_explain_at').on(t.explainAt).where(sql`${t.explainAt} IS NOT NULL`),
    index('recordings_roll_up_at').on(t.rollUpAt).where(sql`${t.rollUpAt} IS NOT NULL`),
    index('recordings_user').on(t.userId, t.startedAt.desc(), t.id.desc()),
    index('recordings_started_at').on(t.startedAt.desc(), t.id.desc()),
  ],
);

/** The moment is a column of its own. */
type WithoutAge<T> = T extends { agoMs: number } ? Omit<T, 'agoMs'> : never;
export type StoredEvent = WithoutAge<ClientEvent>;

export const sessionEvents = pgTable(
  'session_events',
  {
    recordingId: ofRecording(),
    at: timestamptz('at').notNull(),
    event: jsonb('event').$type<StoredEvent>().notNull(),
  },
  (t) => [index('session_events_recording').on(t.recordingId, t.at)],
);

export const sessionWindows = pgTable(
  'session_windows',
  {
    recordingId: uuid('recording_id').notNull(),
    at: timestamptz('at').notNull(),
    ms: integer('ms').notNull(),
    pathKind: text('path_kind'),
    pathVia: text('path_via'),
    toSatellite: real('to_satellite').array(),
    satelliteToAgent: real('satellite_to_agent').array(),
    toAgent: real('to_agent').array(),
    bytes: bigint('bytes', { mode: 'number' }).notNull(),
    host: real('host').array().$type<(number | null)[]>().notNull(),
  },
  (t) => [index('session_windows_recording').on(t.recordingId, t.at)],
);

const rolledUp = () => ({
  recordingId: uuid('recording_id').notNull(),
  at: timestamptz('at').notNull(),
  ms: integer('ms').notNull(),
  slowMs: integer('slow_ms').notNull(),
  pathKind: text('path_kind'),
  pathVia: text('path_via'),
  region: text('region'),
  toSatellite: real('to_satellite').array(),
  satelliteToAgent: real('satellite_to_agent').array(),
  toAgent: real('to_agent').array(),
  bytes: bigint('bytes', { mode: 'number' }).notNull(),
  host: real('host').array().$type<(number | null)[]>().notNull(),
});
export const sessionMinutes = pgTable('session_minutes', rolledUp(), (t) => [
  primaryKey({ columns: [t.recordingId, t.at] }),
]);
export const sessionHours = pgTable('session_hours', rolledUp(), (t) => [
  primaryKey({ columns: [t.recordingId, t.at] }),
]);

export const workspaceWindows = pgTable(
  'workspace_windows',
  {
    workspaceId: uuid('workspace_id').notNull(),
    at: timestamptz('at').notNull(),
    ms: integer('ms').notNull(),
    outOfMemoryKills: integer('out_of_memory_kills').notNull(),
    host: real('host').array().$type<(number | null)[]>().notNull(),
  },
  (t) => [index('workspace_windows_workspace').on(t.workspaceId, t.at)],
);

export const agentBatches = pgTable('agent_batches', {
  workspaceId: uuid('workspace_id')
    .primaryKey()
    .references(() => workspaces.id, { onDelete: 'cascade' }),
  process: text('process').notNull(),
  lastBatch: integer('last_batch').notNull(),
  lastWindowAt: timestamptz('last_window_at').notNull(),
});

export const satelliteWindows = pgTable(
  'satellite_windows',
  {
    satellite: text('satellite').notNull(),
    at: timestamptz('at').notNull(),
    ms: integer('ms').notNull(),
    loopDelayMs: real('loop_delay_ms').notNull(),
  },
  (t) => [index('satellite_windows_satellite').on(t.satellite, t.at), index('satellite_windows_at').on(t.at)],
);

export const connectionEventKinds = ['agent-started', 'satellite-started', 'satellite-draining'] as const;
export const connectionEvents = pgTable(
  'connection_events',
  {
    id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
    at: timestamptz('at').notNull(),
    kind: text('kind').$type<(typeof connectionEventKinds)[number]>().notNull(),
    workspaceId: uuid('workspace_id').references(() => workspaces.id, { onDelete: 'cascade' }),
    satellite: text('satellite'),
  },
  (t) => [
    oneOf('connection_events', t.kind, connectionEventKinds),
    index('connection_events_at').on(t.at),
    index('connection_events_workspace').on(t.workspaceId, t.at).where(sql`${t.workspaceId} IS NOT NULL`),
  ],
);

export const incidents = pgTable(
  'incidents',
  {
    id: uuid('id').primaryKey(),
    recordingId: ofRecording(),
    workspaceId: ofWorkspace(),
    userId: ofUser(),
    at: timestamptz('at').notNull(),
    endedAt: timestamptz('ended_at'),
    kind: text('kind').$type<IncidentKind>().notNull(),
    cause: text('cause').$type<IncidentCause>().notNull(),
    segment: text('segment').$type<Segment>().notNull(),
    confidence: real('confidence').notNull(),
    path: text('path'),
    summary: text('summary').notNull(),
    evidence: jsonb('evidence').$type<string[]>().notNull(),
    ruledOut: jsonb('ruled_out').$type<string[]>().notNull(),
    advice: text('advice'),
  },
  (t) => [
    unique().on(t.recordingId, t.kind, t.at),
    index('incidents_user').on(t.userId, t.at.desc(), t.id.desc()),
    index('incidents_workspace').on(t.workspaceId),
    index('incidents_at').on(t.at),
  ],
);
