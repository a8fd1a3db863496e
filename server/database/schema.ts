import type { AgentStats } from '@cde/api/agent.ts';
import type { Role } from '@cde/api/endpoint.ts';
import type { Scope } from '@cde/api/identity.ts';
import type { PortLevel } from '@cde/api/ports.ts';
import type { SatelliteCondition, SatelliteLoad } from '@cde/api/satellites.ts';
import type { TemplateContent } from '@cde/api/template-file.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import type {
  BuildError,
  BuildStage,
  BuildStatus,
  DesiredState,
  LogLine,
  Transition,
  WorkspaceStatus,
} from '@cde/api/workspaces.ts';
import {
  bigint,
  boolean,
  customType,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  text,
  timestamp,
  uuid,
} from 'drizzle-orm/pg-core';
import type { ProviderState, RenderedTemplate } from '../providers/provider.ts';

const bytea = customType<{ data: Buffer }>({ dataType: () => 'bytea' });
const timestamptz = (name: string) => timestamp(name, { withTimezone: true, mode: 'date' });

export const users = pgTable('users', {
  id: uuid('id').primaryKey(),
  username: text('username').notNull(),
  name: text('name').notNull().default(''),
  email: text('email'),
  role: text('role').$type<Role>().notNull(),
  status: text('status').$type<'active' | 'suspended'>().notNull().default('active'),
  passwordHash: text('password_hash'),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
  lastSeenAt: timestamptz('last_seen_at'),
});

export const oidcIdentities = pgTable(
  'oidc_identities',
  {
    issuer: text('issuer').notNull(),
    subject: text('subject').notNull(),
    userId: uuid('user_id').notNull(),
    createdAt: timestamptz('created_at').notNull().defaultNow(),
  },
  (t) => [primaryKey({ columns: [t.issuer, t.subject] })],
);

export const browserSessions = pgTable('browser_sessions', {
  id: uuid('id').primaryKey(),
  tokenHash: bytea('token_hash').notNull(),
  /** The hash of the session key, which is never in the cookie. */
  keyHash: bytea('key_hash').notNull(),
  userId: uuid('user_id').notNull(),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
  expiresAt: timestamptz('expires_at').notNull(),
  ip: text('ip'),
  userAgent: text('user_agent'),
});

export const apiTokens = pgTable('api_tokens', {
  id: uuid('id').primaryKey(),
  tokenHash: bytea('token_hash').notNull(),
  userId: uuid('user_id').notNull(),
  name: text('name').notNull(),
  scopes: text('scopes').array().$type<Scope[]>().notNull(),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
  expiresAt: timestamptz('expires_at').notNull(),
  lastUsedAt: timestamptz('last_used_at'),
});

export const oneTimeLinks = pgTable('one_time_links', {
  codeHash: bytea('code_hash').primaryKey(),
  userId: uuid('user_id').notNull(),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
  expiresAt: timestamptz('expires_at').notNull(),
  usedAt: timestamptz('used_at'),
});

export const cliLogins = pgTable('cli_logins', {
  deviceCodeHash: bytea('device_code_hash').primaryKey(),
  userCode: text('user_code').notNull(),
  hostname: text('hostname').notNull(),
  ip: text('ip'),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
  expiresAt: timestamptz('expires_at').notNull(),
  userId: uuid('user_id'),
  collectedAt: timestamptz('collected_at'),
});

export const oidcLogins = pgTable('oidc_logins', {
  stateHash: bytea('state_hash').primaryKey(),
  codeVerifier: text('code_verifier').notNull(),
  nonce: text('nonce').notNull(),
  returnTo: text('return_to').notNull(),
  expiresAt: timestamptz('expires_at').notNull(),
  linkUserId: uuid('link_user_id'),
});

export const signInFailures = pgTable('sign_in_failures', {
  id: uuid('id').primaryKey(),
  subject: text('subject').notNull(),
  at: timestamptz('at').notNull().defaultNow(),
});

export const audit = pgTable('audit', {
  id: uuid('id').primaryKey(),
  at: timestamptz('at').notNull().defaultNow(),
  actorId: uuid('actor_id'),
  actor: text('actor').notNull(),
  action: text('action').notNull(),
  targetType: text('target_type').notNull(),
  targetId: text('target_id').notNull(),
  targetName: text('target_name').notNull(),
  before: jsonb('before'),
  after: jsonb('after'),
  requestId: text('request_id').notNull(),
  ip: text('ip'),
});

export const idempotencyKeys = pgTable(
  'idempotency_keys',
  {
    userId: uuid('user_id').notNull(),
    key: text('key').notNull(),
    requestHash: bytea('request_hash').notNull(),
    status: integer('status'),
    response: jsonb('response'),
    createdAt: timestamptz('created_at').notNull().defaultNow(),
  },
  (t) => [primaryKey({ columns: [t.userId, t.key] })],
);

export const templates = pgTable('templates', {
  id: uuid('id').primaryKey(),
  name: text('name').notNull(),
  activeVersionId: uuid('active_version_id'),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
  updatedAt: timestamptz('updated_at').notNull().defaultNow(),
});

export const templateVersions = pgTable('template_versions', {
  id: uuid('id').primaryKey(),
  templateId: uuid('template_id').notNull(),
  number: integer('number').notNull(),
  message: text('message').notNull().default(''),
  files: jsonb('files').$type<Record<string, string>>().notNull(),
  filesHash: bytea('files_hash').notNull(),
  content: jsonb('content').$type<TemplateContent>().notNull(),
  createdBy: uuid('created_by'),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
});

export const workspaces = pgTable('workspaces', {
  id: uuid('id').primaryKey(),
  ownerId: uuid('owner_id').notNull(),
  name: text('name').notNull(),
  templateId: uuid('template_id').notNull(),
  templateVersionId: uuid('template_version_id').notNull(),
  parameters: jsonb('parameters').$type<ParameterValues>().notNull().default({}),
  provider: text('provider').notNull(),
  desired: text('desired').$type<DesiredState>().notNull(),
  status: text('status').$type<WorkspaceStatus>().notNull(),
  reason: text('reason'),
  isolation: text('isolation'),
  providerState: jsonb('provider_state').$type<ProviderState>().notNull().default({}),
  currentBuildId: uuid('current_build_id'),
  revision: integer('revision').notNull().default(0),
  agentBuildId: uuid('agent_build_id'),
  agentTlsKey: text('agent_tls_key'),
  agentSshHostKey: text('agent_ssh_host_key'),
  agentVersion: text('agent_version'),
  agentSeenAt: timestamptz('agent_seen_at'),
  agentStats: jsonb('agent_stats').$type<AgentStats>(),
  recoveries: integer('recoveries').notNull().default(0),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
  updatedAt: timestamptz('updated_at').notNull().defaultNow(),
  deletedAt: timestamptz('deleted_at'),
  cluster: text('cluster'),
  namespace: text('namespace'),
  homeKeptUntil: timestamptz('home_kept_until'),
  restoreFrom: uuid('restore_from'),
  unseenSince: timestamptz('unseen_since'),
});

export const clusters = pgTable('clusters', {
  id: uuid('id').primaryKey(),
  name: text('name').notNull(),
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
});

/** Standalone satellites; the embedded satellites of the server have no row. */
export const satellites = pgTable('satellites', {
  id: uuid('id').primaryKey(),
  name: text('name').notNull(),
  region: text('region').notNull().default(''),
  tokenHash: bytea('token_hash').notNull(),
  url: text('url'),
  stun: text('stun'),
  version: text('version'),
  hostname: text('hostname'),
  condition: text('condition').$type<SatelliteCondition>(),
  load: jsonb('load').$type<SatelliteLoad>(),
  seenAt: timestamptz('seen_at'),
  draining: boolean('draining').notNull().default(false),
  web: boolean('web').notNull().default(false),
  portHost: text('port_host'),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
});

/** The agent's report on the startup script. */
export type StartupReport =
  | { state: 'running' }
  | { state: 'none' }
  | { state: 'done'; exitCode: number | null; signal: string | null; timedOut: boolean; durationMs: number };

export const builds = pgTable('builds', {
  id: uuid('id').primaryKey(),
  workspaceId: uuid('workspace_id').notNull(),
  number: integer('number').notNull(),
  transition: text('transition').$type<Transition>().notNull(),
  status: text('status').$type<BuildStatus>().notNull(),
  templateVersionId: uuid('template_version_id').notNull(),
  parameters: jsonb('parameters').$type<ParameterValues>().notNull(),
  options: jsonb('options').$type<{ restart?: boolean; home?: 'keep' | 'discard' }>().notNull().default({}),
  stages: jsonb('stages').$type<BuildStage[]>().notNull().default([]),
  error: jsonb('error').$type<BuildError>(),
  initiatorId: uuid('initiator_id'),
  initiator: text('initiator').notNull(),
  reason: text('reason').notNull().default(''),
  cancelRequested: boolean('cancel_requested').notNull().default(false),
  agentTokenHash: bytea('agent_token_hash'),
  startup: jsonb('startup').$type<StartupReport>(),
  rendered: jsonb('rendered').$type<RenderedTemplate>(),
  createdAt: timestamptz('created_at').notNull().defaultNow(),
  startedAt: timestamptz('started_at'),
  finishedAt: timestamptz('finished_at'),
});

export const buildLogs = pgTable(
  'build_logs',
  {
    buildId: uuid('build_id').notNull(),
    seq: integer('seq').notNull(),
    at: timestamptz('at').notNull(),
    stage: text('stage').$type<LogLine['stage']>().notNull(),
    source: text('source').$type<LogLine['source']>().notNull(),
    level: text('level').$type<LogLine['level']>().notNull(),
    text: text('text').notNull(),
    agentProcess: text('agent_process'),
    agentSeq: integer('agent_seq'),
  },
  (t) => [primaryKey({ columns: [t.buildId, t.seq] })],
);

export const buildLogSizes = pgTable('build_log_sizes', {
  buildId: uuid('build_id').primaryKey(),
  bytes: bigint('bytes', { mode: 'number' }).notNull(),
  cut: boolean('cut').notNull().default(false),
  removed: boolean('removed').notNull().default(false),
});

/** Workspace ports that their owners have shared. */
export const portShares = pgTable(
  'port_shares',
  {
    workspaceId: uuid('workspace_id').notNull(),
    port: integer('port').notNull(),
    level: text('level').$type<PortLevel>().notNull(),
    sharedAt: timestamptz('shared_at').notNull().defaultNow(),
  },
  (t) => [primaryKey({ columns: [t.workspaceId, t.port] })],
);

/** One-time codes that a browser signed in to the dashboard exchanges for a cookie on a port's own host name. */
export const portCodes = pgTable('port_codes', {
  codeHash: bytea('code_hash').primaryKey(),
  sessionId: uuid('session_id').notNull(),
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
