import type { StopCause } from '@cde/api/activity.ts';
import type { AgentStats } from '@cde/api/agent.ts';
import { PortLevel } from '@cde/api/ports.ts';
import { type SatelliteCondition, type SatelliteLoad, satelliteConditions } from '@cde/api/satellites.ts';
import type { TemplateContent } from '@cde/api/template-file.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import {
  type BuildError,
  type BuildStage,
  type BuildStatus,
  buildStatuses,
  type DesiredState,
  desiredStates,
  type LogLine,
  type Transition,
  transitions,
  type WorkspaceStatus,
  workspaceStatuses,
} from '@cde/api/workspaces.ts';
import { sql } from 'drizzle-orm';
import {
  type AnyPgColumn,
  bigint,
  boolean,
  check,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  text,
  unique,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core';
import type { EndCause, ProviderState, RenderedTemplate } from '../providers/provider.ts';
import { bytea, oneOf, timestamptz } from './columns.ts';
import { browserSessions, users } from './identity-schema.ts';

export * from './identity-schema.ts';

export const templates = pgTable('templates', {
  id: uuid('id').primaryKey(),
  name: text('name').notNull().unique(),
  activeVersionId: uuid('active_version_id').references((): AnyPgColumn => templateVersions.id),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
  updatedAt: timestamptz('updated_at').notNull().defaultNow(),
});

export const templateVersions = pgTable(
  'template_versions',
  {
    id: uuid('id').primaryKey(),
    templateId: uuid('template_id')
      .notNull()
      .references(() => templates.id, { onDelete: 'cascade' }),
    number: integer('number').notNull(),
    message: text('message').notNull().default(''),
    files: jsonb('files').$type<Record<string, string>>().notNull(),
    filesHash: bytea('files_hash').notNull(),
    content: jsonb('content').$type<TemplateContent>().notNull(),
    createdBy: uuid('created_by').references(() => users.id, { onDelete: 'set null' }),
    createdAt: timestamptz('created_at').notNull().defaultNow(),
  },
  (t) => [unique().on(t.templateId, t.number)],
);

export const workspaces = pgTable(
  'workspaces',
  {
    id: uuid('id').primaryKey(),
    ownerId: uuid('owner_id')
      .notNull()
      .references(() => users.id),
    name: text('name').notNull(),
    templateId: uuid('template_id')
      .notNull()
      .references(() => templates.id),
    templateVersionId: uuid('template_version_id')
      .notNull()
      .references(() => templateVersions.id),
    parameters: jsonb('parameters').$type<ParameterValues>().notNull().default({}),
    provider: text('provider').notNull(),
    desired: text('desired').$type<DesiredState>().notNull(),
    status: text('status').$type<WorkspaceStatus>().notNull(),
    reason: text('reason'),
    isolation: text('isolation'),
    providerState: jsonb('provider_state').$type<ProviderState>().notNull().default({}),
    currentBuildId: uuid('current_build_id').references((): AnyPgColumn => builds.id),
    revision: integer('revision').notNull().default(0),
    agentBuildId: uuid('agent_build_id'),
    agentTlsKey: text('agent_tls_key'),
    agentSshHostKey: text('agent_ssh_host_key'),
    agentVersion: text('agent_version'),
    homeDirectory: text('home_directory'),
    agentSeenAt: timestamptz('agent_seen_at'),
    agentStats: jsonb('agent_stats').$type<AgentStats>(),
    recoveries: integer('recoveries').notNull().default(0),
    createdAt: timestamptz('created_at').notNull().defaultNow(),
    updatedAt: timestamptz('updated_at').notNull().defaultNow(),
    deletedAt: timestamptz('deleted_at'),
    cluster: text('cluster'),
    namespace: text('namespace'),
    homeKeptUntil: timestamptz('home_kept_until'),
    nodePool: text('node_pool'),
    restoreFrom: uuid('restore_from').references((): AnyPgColumn => workspaces.id),
    unseenSince: timestamptz('unseen_since'),
    dormantState: jsonb('dormant_state').$type<ProviderState>(),
  },
  (t) => [
    oneOf('workspaces', t.desired, desiredStates),
    oneOf('workspaces', t.status, workspaceStatuses),
    uniqueIndex('workspaces_owner_name').on(t.ownerId, t.name).where(sql`${t.status} <> 'deleted'`),
    index('workspaces_list').on(t.id).where(sql`${t.status} <> 'deleted'`),
    index('workspaces_template').on(t.templateId).where(sql`${t.status} <> 'deleted'`),
    index('workspaces_cluster').on(t.cluster).where(sql`${t.status} <> 'deleted'`),
    index('workspaces_kept_homes').on(t.homeKeptUntil).where(sql`${t.homeKeptUntil} IS NOT NULL`),
  ],
);

export const clusters = pgTable(
  'clusters',
  {
    id: uuid('id').primaryKey(),
    name: text('name').notNull().unique(),
    region: text('region').notNull().default(''),
    labels: jsonb('labels').$type<Record<string, string>>().notNull().default({}),
    isDefault: boolean('is_default').notNull().default(false),
    credentials: text('credentials').$type<'kubeconfig' | 'in-cluster'>().notNull(),
    sealedKubeconfig: bytea('sealed_kubeconfig'),
    endpoint: text('endpoint').notNull().default(''),
    publicEndpoint: text('public_endpoint'),
    state: text('state').$type<'connecting' | 'ready' | 'away'>().notNull().default('connecting'),
    reason: text('reason'),
    version: text('version'),
    seenAt: timestamptz('seen_at'),
    revision: integer('revision').notNull().default(0),
    createdAt: timestamptz('created_at').notNull().defaultNow(),
  },
  (t) => [
    oneOf('clusters', t.credentials, ['kubeconfig', 'in-cluster']),
    oneOf('clusters', t.state, ['connecting', 'ready', 'away']),
    uniqueIndex('clusters_default').on(t.isDefault).where(sql`${t.isDefault}`),
  ],
);

/** Standalone satellites; the embedded satellites of the server have no row. */
export const satellites = pgTable(
  'satellites',
  {
    id: uuid('id').primaryKey(),
    name: text('name').notNull().unique(),
    region: text('region').notNull().default(''),
    tokenHash: bytea('token_hash').notNull().unique(),
    url: text('url'),
    stun: text('stun'),
    version: text('version'),
    hostname: text('hostname'),
    condition: text('condition').$type<SatelliteCondition>(),
    load: jsonb('load').$type<SatelliteLoad>(),
    seenAt: timestamptz('seen_at'),
    draining: boolean('draining').notNull().default(false),
    web: boolean('web').notNull().default(false),
    portHost: text('port_host').unique(),
    createdAt: timestamptz('created_at').notNull().defaultNow(),
  },
  (t) => [oneOf('satellites', t.condition, satelliteConditions)],
);

/** The agent's report on the startup script. */
export type StartupReport =
  | { state: 'running' }
  | { state: 'none' }
  | { state: 'done'; exitCode: number | null; signal: string | null; timedOut: boolean; durationMs: number };

export interface BuildOptions {
  restart?: boolean;
  home?: 'keep' | 'discard';
  /** For a stop: activity until the provider is called cancels it. */
  isIdleStop?: boolean;
  /** For a restart because the compute was gone: how it ended. */
  endCause?: EndCause;
  /** For a stop by a policy: which. */
  stopCause?: StopCause;
  /** For a stop: remove everything but the home. */
  makesDormant?: boolean;
  /** For a delete: by cleanup, because no person uses it. */
  isUnused?: boolean;
}

/** How the agent prepares for a stop. Unix time in ms. */
export type ShutdownReport =
  | { state: 'requested'; at: number }
  | { state: 'ready'; exitCode: number | null; timedOut: boolean };

export const builds = pgTable(
  'builds',
  {
    id: uuid('id').primaryKey(),
    workspaceId: uuid('workspace_id')
      .notNull()
      .references(() => workspaces.id, { onDelete: 'cascade' }),
    number: integer('number').notNull(),
    transition: text('transition').$type<Transition>().notNull(),
    status: text('status').$type<BuildStatus>().notNull(),
    templateVersionId: uuid('template_version_id')
      .notNull()
      .references(() => templateVersions.id),
    parameters: jsonb('parameters').$type<ParameterValues>().notNull(),
    options: jsonb('options').$type<BuildOptions>().notNull().default({}),
    stages: jsonb('stages').$type<BuildStage[]>().notNull().default([]),
    error: jsonb('error').$type<BuildError>(),
    initiatorId: uuid('initiator_id'),
    initiator: text('initiator').notNull(),
    reason: text('reason').notNull().default(''),
    cancelRequested: boolean('cancel_requested').notNull().default(false),
    agentTokenHash: bytea('agent_token_hash').unique(),
    startup: jsonb('startup').$type<StartupReport>(),
    shutdown: jsonb('shutdown').$type<ShutdownReport>(),
    rendered: jsonb('rendered').$type<RenderedTemplate>(),
    createdAt: timestamptz('created_at').notNull().defaultNow(),
    startedAt: timestamptz('started_at'),
    finishedAt: timestamptz('finished_at'),
  },
  (t) => [
    unique().on(t.workspaceId, t.number),
    oneOf('builds', t.transition, transitions),
    oneOf('builds', t.status, buildStatuses),
    index('builds_open').on(t.workspaceId).where(sql`${t.status} IN ('queued', 'running')`),
  ],
);

export const buildLogs = pgTable(
  'build_logs',
  {
    buildId: uuid('build_id')
      .notNull()
      .references(() => builds.id, { onDelete: 'cascade' }),
    seq: integer('seq').notNull(),
    at: timestamptz('at').notNull(),
    stage: text('stage').$type<LogLine['stage']>().notNull(),
    source: text('source').$type<LogLine['source']>().notNull(),
    level: text('level').$type<LogLine['level']>().notNull(),
    text: text('text').notNull(),
    agentProcess: text('agent_process'),
    agentSeq: integer('agent_seq'),
  },
  (t) => [
    primaryKey({ columns: [t.buildId, t.seq] }),
    uniqueIndex('build_logs_agent')
      .on(t.buildId, t.agentProcess, t.agentSeq)
      .where(sql`${t.agentProcess} IS NOT NULL`),
  ],
);

export const buildLogSizes = pgTable(
  'build_log_sizes',
  {
    buildId: uuid('build_id')
      .primaryKey()
      .references(() => builds.id, { onDelete: 'cascade' }),
    bytes: bigint('bytes', { mode: 'number' }).notNull(),
    cut: boolean('cut').notNull().default(false),
    removed: boolean('removed').notNull().default(false),
  },
  (t) => [index('build_log_sizes_kept').on(t.buildId).where(sql`NOT ${t.removed}`)],
);

/** Workspace ports that their owners have shared. */
export const portShares = pgTable(
  'port_shares',
  {
    workspaceId: uuid('workspace_id')
      .notNull()
      .references(() => workspaces.id, { onDelete: 'cascade' }),
    port: integer('port').notNull(),
    level: text('level').$type<PortLevel>().notNull(),
    sharedAt: timestamptz('shared_at').notNull().defaultNow(),
  },
  (t) => [
    primaryKey({ columns: [t.workspaceId, t.port] }),
    oneOf('port_shares', t.level, PortLevel.options),
    check('port_shares_port_check', sql`${t.port} BETWEEN 1 AND 65535`),
  ],
);

/** One-time codes that a browser signed in to the dashboard exchanges for a cookie on a port's own host name. */
export const portCodes = pgTable('port_codes', {
  codeHash: bytea('code_hash').primaryKey(),
  sessionId: uuid('session_id')
    .notNull()
    .references(() => browserSessions.id, { onDelete: 'cascade' }),
  host: text('host').notNull(),
  state: text('state').notNull(),
  expiresAt: timestamptz('expires_at').notNull(),
});

export const replicas = pgTable('replicas', {
  number: integer('number').primaryKey().generatedAlwaysAsIdentity(),
  hostname: text('hostname').notNull(),
  pid: integer('pid').notNull(),
  version: text('version').notNull(),
  url: text('url').notNull(),
  workerIds: text('worker_ids').array().notNull().default([]),
  startedAt: timestamptz('started_at').notNull().defaultNow(),
});

export const serverKeys = pgTable('server_keys', {
  name: text('name').primaryKey(),
  sealed: bytea('sealed').notNull(),
  publicKey: text('public_key'),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
});
