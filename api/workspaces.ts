import { z } from 'zod';
import { Action } from './actions.ts';
import { IdleState } from './activity.ts';
import { AgentStats, PathKind } from './agent.ts';
import { endpoint } from './endpoint.ts';
import { HostPort, Id, Moment, maxInteger, PageQuery, page, WorkspaceName, WorkspaceRef } from './names.ts';
import { addressPolicies } from './recorded-addresses.ts';
import { ParameterValues } from './template-parameters.ts';

/** What was asked for. */
export const desiredStates = ['running', 'stopped', 'deleted'] as const;
/** What exists. docs/statuses.md has the diagram. */
export const workspaceStatuses = [
  'pending',
  'starting',
  'running',
  'stopping',
  'stopped',
  'failed',
  'deleting',
  'deleted',
] as const;
export type DesiredState = (typeof desiredStates)[number];
export type WorkspaceStatus = (typeof workspaceStatuses)[number];

export const transitions = ['start', 'stop', 'update', 'delete'] as const;
export type Transition = (typeof transitions)[number];
export const buildStatuses = ['queued', 'running', 'succeeded', 'failed', 'cancelled'] as const;
export type BuildStatus = (typeof buildStatuses)[number];

/** The stages of a build, in order. A stop or delete only has `queued` and `provision`. */
export const stages = ['queued', 'render', 'provision', 'agent', 'startup', 'ready'] as const;
export type Stage = (typeof stages)[number];

export const BuildStage = z.object({
  name: z.enum(stages),
  status: z.enum(['running', 'succeeded', 'failed', 'cancelled']),
  startedAt: Moment,
  finishedAt: Moment.nullable(),
});

export type BuildStage = z.infer<typeof BuildStage>;

/** Why a build failed. `fault`: `user` if the developer or the template can fix it, else `system`. */
export const BuildError = z.object({
  code: z.string(),
  message: z.string(),
  detail: z.string().optional(),
  hint: z.string().optional(),
  actions: z.array(Action).optional(),
  fault: z.enum(['user', 'system']),
  stage: z.enum(stages).optional(),
});
export type BuildError = z.infer<typeof BuildError>;

export const Build = z.object({
  id: Id,
  workspaceId: Id,
  number: z.number().int(),
  transition: z.enum(transitions),
  status: z.enum(buildStatuses),
  templateVersion: z.number().int(),
  stages: z.array(BuildStage),
  error: BuildError.nullable(),
  initiator: z.string().describe('A username, or `system`'),
  reason: z.string(),
  cancelRequested: z.boolean(),
  createdAt: Moment,
  startedAt: Moment.nullable(),
  finishedAt: Moment.nullable(),
});
export type Build = z.infer<typeof Build>;

export const Workspace = z.object({
  id: Id,
  owner: z.string(),
  name: WorkspaceName,
  template: z.string(),
  templateVersion: z.number().int(),
  activeTemplateVersion: z.number().int().describe('The version that `update` moves the workspace to'),
  outdated: z.boolean(),
  provider: z.string(),
  parameters: ParameterValues,
  desired: z.enum(desiredStates),
  status: z.enum(workspaceStatuses),
  reason: z
    .string()
    .nullable()
    .describe('One sentence that explains the status, if there is something to explain'),
  isolation: z.string().nullable().describe('Local provider: what separates the workspace from the machine'),
  cluster: z.string().nullable().describe('Kubernetes provider: the cluster that it runs on'),
  namespace: z.string().nullable().describe('Kubernetes provider: its namespace'),
  home: z.string().describe('The path of its home, inside the workspace'),
  agent: z.object({
    connected: z.boolean(),
    version: z.string().nullable(),
    lastSeenAt: Moment.nullable(),
    sshHostKey: z.string().nullable(),
  }),
  latestBuild: Build.nullable(),
  idle: IdleState.nullable()
    .optional()
    .describe('Why it is awake and when it stops; null in a workspace that does not run'),
  archivedAt: Moment.nullable()
    .optional()
    .describe('Since when it is missing from lists, because no person used it'),
  deletesAt: Moment.nullable()
    .optional()
    .describe('When cleanup will delete it, as announced, unless a person starts or keeps it before'),
  createdAt: Moment,
  updatedAt: Moment,
});
export type Workspace = z.infer<typeof Workspace>;

/** The home of a deleted workspace, within its grace period. */
export const RetainedHome = z.object({
  id: Id.describe('The id of the workspace that it belonged to'),
  owner: z.string(),
  workspace: WorkspaceName,
  template: z.string(),
  provider: z.string(),
  cluster: z.string().nullable(),
  size: z
    .string()
    .nullable()
    .describe(
      'The size of its volume, as Kubernetes writes quantities: `20Gi`. Null if the home has no volume of its own',
    ),
  deletedAt: Moment,
  keptUntil: Moment,
});
export type RetainedHome = z.infer<typeof RetainedHome>;

export const LogLine = z.object({
  seq: z.number().int().describe('Counts up within a build'),
  at: Moment,
  stage: z.enum(stages),
  source: z.enum(['server', 'provider', 'agent', 'startup', 'shutdown']),
  level: z.enum(['info', 'warn', 'error']),
  text: z.string(),
});
export type LogLine = z.infer<typeof LogLine>;

/** What a client needs to open a session with a workspace. */
export const TicketReply = z.object({
  ticket: z.string().describe('Signed, and valid for minutes'),
  expiresAt: Moment,
  workspaceId: Id,
  workspace: z.string(),
  agentKey: z.string().describe("SHA-256 of the agent's TLS SubjectPublicKeyInfo, base64url"),
  sshHostKey: z.string(),
  username: z.string(),
  satellites: z.array(
    z.object({
      name: z.string(),
      url: z.string(),
      region: z.string().default(''),
      stun: HostPort.optional().describe('HOST:PORT of its STUN server (UDP)'),
      agentRttMs: z
        .number()
        .nullable()
        .default(null)
        .describe("The agent's round-trip time to it, as last reported"),
    }),
  ),
  paths: z.array(PathKind).default(['relay']).describe('The kinds of path that the session can use'),
  recordedAddresses: z
    .enum(addressPolicies)
    .optional()
    .describe('How much the client may report of the addresses of direct paths; absent: all'),
});
export type TicketReply = z.infer<typeof TicketReply>;

const tag = 'workspaces';
const params = z.object({ workspace: WorkspaceRef });
const buildParams = z.object({ build: Id });

/** Common to all changes of a workspace: they reply at once with the build that makes the change. */
const startsBuild = {
  method: 'POST',
  tag,
  permission: 'workspace:operate',
  reply: Build,
  status: 202,
  idempotent: true,
} as const;

export const listWorkspaces = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces',
  tag,
  summary: 'List the workspaces that you can see',
  permission: 'workspace:read',
  query: PageQuery.extend({
    owner: z.string().max(80).optional().describe('A username, or `me`'),
    status: z.enum(workspaceStatuses).optional(),
    template: z.string().max(80).optional(),
    search: z.string().max(80).optional(),
    archived: z
      .enum(['exclude', 'include', 'only'])
      .default('exclude')
      .describe('Whether to list archived workspaces. One whose deletion is announced is not excluded'),
  }),
  reply: page(Workspace),
});
export const createWorkspace = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces',
  tag,
  summary: 'Create a workspace and start it',
  permission: 'workspace:create',
  body: z.object({
    name: WorkspaceName,
    owner: z.string().max(80).optional().describe('Another user, if your role allows it'),
    template: z.string().max(80),
    parameters: ParameterValues.default({}),
    start: z.boolean().default(true),
    home: Id.optional().describe(
      'A retained home to restore, by the id of the workspace that it belonged to',
    ),
  }),
  reply: Workspace,
  status: 201,
  idempotent: true,
});
export const getWorkspace = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces/:workspace',
  tag,
  summary: 'Show a workspace',
  permission: 'workspace:read',
  params,
  reply: Workspace,
});
export const startWorkspace = endpoint({
  ...startsBuild,
  path: '/api/v1/workspaces/:workspace/start',
  summary: 'Start a workspace',
  params,
  body: z.object({}).optional(),
});
export const stopWorkspace = endpoint({
  ...startsBuild,
  path: '/api/v1/workspaces/:workspace/stop',
  summary: 'Stop a workspace; the home stays',
  params,
  body: z.object({}).optional(),
});
export const restartWorkspace = endpoint({
  ...startsBuild,
  path: '/api/v1/workspaces/:workspace/restart',
  summary: 'Restart a workspace on the same template version',
  params,
  body: z.object({}).optional(),
});
export const updateWorkspace = endpoint({
  ...startsBuild,
  path: '/api/v1/workspaces/:workspace/update',
  summary:
    'Restart a workspace on the active template version, with changed parameters if given. Returns the last build if nothing would change',
  params,
  body: z
    .object({
      parameters: ParameterValues.optional(),
      force: z.boolean().optional().describe('Rebuild the workspace even if it is up to date'),
    })
    .optional(),
});
export const renameWorkspace = endpoint({
  method: 'PATCH',
  path: '/api/v1/workspaces/:workspace',
  tag,
  summary: 'Rename a workspace; its home, namespace and open sessions stay',
  permission: 'workspace:operate',
  params,
  body: z.object({ name: WorkspaceName }),
  reply: Workspace,
});
export const deleteWorkspace = endpoint({
  method: 'DELETE',
  path: '/api/v1/workspaces/:workspace',
  tag,
  summary: 'Delete a workspace; the home is retained for the grace period unless discarded',
  permission: 'workspace:delete',
  params,
  query: z.object({ home: z.enum(['keep', 'discard']).default('keep') }),
  reply: Build,
  status: 202,
});
export const listRetainedHomes = endpoint({
  method: 'GET',
  path: '/api/v1/homes',
  tag,
  summary: 'List homes of deleted workspaces that can still be restored',
  permission: 'workspace:read',
  maxConcurrent: 16,
  query: PageQuery.extend({ owner: z.string().max(80).optional().describe('A username, or `me`') }),
  reply: page(RetainedHome),
});
export const deleteRetainedHome = endpoint({
  method: 'DELETE',
  path: '/api/v1/homes/:home',
  tag,
  summary: 'Delete a retained home before its grace period ends. It cannot be restored afterwards',
  permission: 'workspace:delete',
  params: z.object({ home: Id }),
});
export const listBuilds = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces/:workspace/builds',
  tag,
  summary: 'List the builds of a workspace, newest first',
  permission: 'workspace:read',
  params,
  query: PageQuery,
  reply: page(Build),
});
export const getBuild = endpoint({
  method: 'GET',
  path: '/api/v1/builds/:build',
  tag,
  summary: 'Show a build',
  permission: 'workspace:read',
  params: buildParams,
  reply: Build,
});
export const getBuildLog = endpoint({
  method: 'GET',
  path: '/api/v1/builds/:build/log',
  tag,
  summary: 'Read the log of a build; with `wait`, wait for more',
  permission: 'workspace:read',
  maxConcurrent: 100,
  params: buildParams,
  query: z.object({
    after: z.coerce.number().int().min(0).max(maxInteger).default(0),
    limit: z.coerce.number().int().min(1).max(1000).default(1000),
    wait: z.coerce
      .number()
      .int()
      .min(0)
      .max(30)
      .default(0)
      .describe('Seconds to wait for a line after `after`, or for the end of the build'),
  }),
  reply: z.object({
    lines: z.array(LogLine),
    build: Build,
    done: z.boolean().describe('True if the build has ended and these are its last lines'),
  }),
});
export const cancelBuild = endpoint({
  ...startsBuild,
  path: '/api/v1/builds/:build/cancel',
  summary: 'Cancel a build in progress',
  params: buildParams,
  body: z.object({}).optional(),
});
export const createTicket = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/tickets',
  tag,
  summary: 'Create a ticket to open a session',
  permission: 'workspace:connect',
  params,
  body: z.object({
    clientKey: z.string().max(200).describe("The client's Ed25519 public key (SPKI DER, base64url)"),
  }),
  reply: TicketReply,
});
export const getWorkspaceStats = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces/:workspace/stats',
  tag,
  summary: 'Show the last stats of the agent',
  permission: 'workspace:read',
  params,
  reply: z.object({ stats: AgentStats.nullable() }),
});
