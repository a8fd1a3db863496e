import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { weekdays, workdays } from './idle-values.ts';
import { maxReasonLength } from './keep-awake.ts';
import { Id, Moment, PageQuery, page, plainText, WorkspaceRef } from './names.ts';
import { isTimeZone } from './time-zones.ts';

/**
 * What counts as activity, and who or what causes it. An open connection, a keep-alive, a health probe, an automatic
 * reconnect, a look at the dashboard and the agent's own traffic are missing here on purpose: none of them means that
 * somebody needs the workspace.
 */
export const signalSources = {
  'terminal-input': 'person',
  'editor-input': 'person',
  'port-visit': 'person',
  'process-cpu': 'work',
  'disk-throughput': 'work',
  'network-throughput': 'work',
  'command-output': 'work',
  build: 'work',
  sync: 'work',
} as const;

export type Signal = keyof typeof signalSources;
export const signals = Object.keys(signalSources) as Signal[];

/** A length of time of up to a year. */
export const Seconds = z
  .number()
  .int()
  .min(1)
  .max(366 * 24 * 3600, 'must be at most 366 days');
/**
 * The latest occurrence of each signal, as an agent reports it with its stats. Ages instead of times, because the clocks
 * of workspaces are not trusted. A signal that has not occurred since the agent started is missing.
 */
export const AgentActivity = z.object({
  agentAgeMs: z.number().min(0).max(1e12).describe('How long ago the agent process started'),
  signals: z
    .array(
      z.object({
        signal: z.enum(signals),
        ageMs: z.number().min(0).max(1e12),
        by: plainText(120).optional().describe('A username, or the name of a process or port'),
      }),
    )
    .max(signals.length),
});
export type AgentActivity = z.infer<typeof AgentActivity>;
/** In place of it: nothing has occurred since the previous report, and the agent has the reply with this revision. */
export const NoActivity = z.object({ same: z.string().min(1).max(16) });
export type NoActivity = z.infer<typeof NoActivity>;

/** Why a workspace is about to stop. `request`: a person or the API asked for it. */
export const StopCause = z.enum(['idle', 'max-run', 'schedule', 'dormant', 'request']);
export type StopCause = z.infer<typeof StopCause>;
/** Why cleanup does something: it stops a workspace, or archives or deletes one that no person uses. */
export const CleanupCause = z.enum([...StopCause.options, 'archive', 'delete']);
export type CleanupCause = z.infer<typeof CleanupCause>;

/** The server asks the agent to prepare for a stop: run the shutdown script and end. */
export const ShutdownRequest = z.object({
  id: Id.describe('Of this request; the answer names it'),
  cause: StopCause,
  idleSinceAgeMs: z
    .number()
    .nullable()
    .describe(
      'Not null if activity vetoes the stop: how long ago the activity occurred that the decision to stop was based on. The agent vetoes if it has seen any since',
    ),
  script: z.string().nullable().describe("The template's shutdown script"),
  timeoutMs: z.number().int(),
});
export type ShutdownRequest = z.infer<typeof ShutdownRequest>;

/** The part of the reply to an agent's report that concerns idleness. */
export const IdleReply = z.object({
  stopsInMs: z
    .number()
    .nullable()
    .describe(
      'When the workspace stops unless something keeps it awake. The agent reports again at that moment',
    ),
  cause: StopCause.nullable(),
  warnBeforeMs: z.array(z.number().int()).describe('How long before the stop open terminals are warned'),
  extendable: z.boolean().describe('Whether activity or a lease postpones the stop'),
  shutdown: ShutdownRequest.nullable(),
  revision: z.string().optional().describe('For the next report, if nothing occurs until then'),
});
export type IdleReply = z.infer<typeof IdleReply>;

/** A request to keep a workspace awake until a moment. Also written by programs in the workspace, through the agent. */
export const Lease = z.object({
  id: Id,
  by: z.string().describe('A username, `schedule`, or `workspace` for programs in it'),
  reason: z.string(),
  createdAt: Moment.describe('When it was granted, or renewed last'),
  expiresAt: Moment,
  runEndsAt: Moment.nullable()
    .optional()
    .describe('When the maximum run time stops the workspace, if that is before the lease expires'),
});
export type Lease = z.infer<typeof Lease>;
export const LeaseInput = z.object({
  seconds: Seconds.describe('How long; at most what the installation allows'),
  reason: plainText(maxReasonLength).default(''),
  renews: Id.optional().describe(
    'An active lease of the same caller: it is extended, and history and audit log have no entry of their own for that. If it has ended, there is a new lease',
  ),
});

/** What keeps a running workspace awake, or did last. */
export const AwakeCause = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('signal'),
    signal: z.enum(signals),
    at: Moment,
    by: z.string().optional(),
  }),
  z.object({ kind: z.literal('lease'), id: Id, at: Moment.describe('When it expires'), by: z.string() }),
  z.object({ kind: z.literal('start'), at: Moment }),
  z.object({
    kind: z.literal('never-stop'),
    at: Moment.describe('When it expires'),
    by: z.string(),
    reason: z.string(),
  }),
]);
export type AwakeCause = z.infer<typeof AwakeCause>;

/** Why a running workspace is awake and when it stops; null in a workspace that does not run. */
export const IdleState = z.object({
  awakeBecause: AwakeCause,
  stopsAt: Moment.nullable().describe('Unless there is more activity. Null: nothing stops it'),
  cause: StopCause.nullable().describe('What stops it then'),
  waitsForReport: z
    .boolean()
    .describe('It would stop, but its agent has not reported since: missing data is not idleness'),
  held: z
    .boolean()
    .describe(
      'It is due, and waits because many are: it stops some minutes later, or once an admin allows it',
    ),
});
export type IdleState = z.infer<typeof IdleState>;

const TimeOfDay = z
  .string()
  .max(5)
  .regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'write HH:MM, for example 08:30');

/** Daily start and stop. From the stop until the next start, half an hour without activity is enough to stop it. */
export const DailySchedule = z
  .strictObject({
    start: TimeOfDay.optional().describe('On the given days, except holidays'),
    stop: TimeOfDay.optional().describe('On every day'),
    days: z.array(z.enum(weekdays)).min(1).max(7).default(workdays),
    timeZone: z
      .string()
      .max(60)
      .refine(isTimeZone, 'must be the name of a time zone such as Europe/Vienna')
      .describe('An IANA name: Europe/Vienna'),
  })
  .refine(({ start, stop }) => start !== undefined || stop !== undefined, 'needs a start, a stop or both')
  .refine(({ start, stop }) => start === undefined || start !== stop, {
    path: ['stop'],
    message: 'must differ from the start',
  });
export type DailySchedule = z.infer<typeof DailySchedule>;

/** What a developer chooses for one workspace, within the bounds. Absent: as the template says. */
export const IdleChoices = z.strictObject({
  stopAfterSeconds: Seconds.nullable().optional().describe('Stop after this long without activity'),
  schedule: DailySchedule.nullable().optional().describe('Null: no daily start and stop'),
  neverStop: z
    .strictObject({ until: Moment, reason: plainText(200).min(1, 'say why') })
    .nullable()
    .optional()
    .describe('Do not stop for idleness until then'),
  startOnConnect: z
    .boolean()
    .optional()
    .describe('Start it when a person connects. An automatic reconnect of an editor never does'),
});
export type IdleChoices = z.infer<typeof IdleChoices>;

/** The policy of a workspace: what its template says, its owner chose and the bounds allow. Null: never. */
export const EffectiveIdlePolicy = z.object({
  stopAfterSeconds: z.number().nullable(),
  maxRunSeconds: z.number().nullable(),
  dormantAfterDays: z.number().nullable(),
  archiveAfterDays: z.number().nullable().default(null),
  deleteAfterDays: z.number().nullable().default(null),
  schedule: DailySchedule.nullable(),
  neverStop: z.object({ until: Moment, by: z.string(), reason: z.string() }).nullable(),
  startOnConnect: z.boolean(),
  /** Which settings are not those that were asked for, because the bounds of the installation are tighter. */
  limited: z.array(
    z.enum([
      'stopAfterSeconds',
      'maxRunSeconds',
      'neverStop',
      'schedule',
      'dormantAfterDays',
      'archiveAfterDays',
      'deleteAfterDays',
    ]),
  ),
});
export type EffectiveIdlePolicy = z.infer<typeof EffectiveIdlePolicy>;

export const activityEventKinds = [
  /** A stretch of activity: `signal`, from `at` to `until`. */
  'signal',
  'lease-granted',
  'lease-ended',
  'policy-changed',
  'warned',
  'stop-decided',
  'stop-vetoed',
  'stop-held',
  'report-missing',
  'stopped',
  'started',
  'dormant',
  'archived',
  'deletion-announced',
  'deletion-cancelled',
  'deletion-held',
  'deletion-decided',
  /** A person asked to keep it. */
  'kept',
] as const;
export const ActivityEvent = z.object({
  id: Id,
  at: Moment,
  until: Moment.nullable().describe('The end of a stretch of activity'),
  kind: z.enum(activityEventKinds),
  signal: z.enum(signals).nullable(),
  cause: CleanupCause.nullable(),
  by: z.string().nullable(),
  text: z.string().describe('One sentence'),
});
export type ActivityEvent = z.infer<typeof ActivityEvent>;

export const WorkspaceActivity = z.object({
  state: IdleState.nullable(),
  policy: EffectiveIdlePolicy,
  choices: IdleChoices,
  defaults: EffectiveIdlePolicy.optional().describe('The policy without the choices'),
  startsAt: Moment.nullable().default(null).describe('When its schedule starts it next, if it is stopped'),
  dormantAt: Moment.nullable().default(null).describe('Since when only its home exists'),
  archivedAt: Moment.nullable().default(null).describe('Since when it is missing from lists'),
  deletesAt: Moment.nullable()
    .default(null)
    .describe('When it will be deleted, as announced, unless a person starts or keeps it before'),
  signals: z.array(
    z.object({
      signal: z.enum(signals),
      source: z.enum(['person', 'work']),
      lastAt: Moment.nullable(),
      by: z.string().nullable(),
    }),
  ),
  reportedAt: Moment.nullable().describe('What the agent has seen is known until then'),
  leases: z.array(Lease),
});
export type WorkspaceActivity = z.infer<typeof WorkspaceActivity>;

const tag = 'activity';
const params = z.object({ workspace: WorkspaceRef });

export const getWorkspaceActivity = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces/:workspace/activity',
  tag,
  summary: 'Show why a workspace is awake, and when it stops',
  permission: 'workspace:read',
  params,
  reply: WorkspaceActivity,
});
export const listActivityEvents = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces/:workspace/activity/events',
  tag,
  summary: 'List what kept a workspace awake and what stopped it, newest first',
  permission: 'workspace:read',
  params,
  query: PageQuery,
  reply: page(ActivityEvent),
});
/** PUT, because a choice that is left out is the template's again. An unchanged `neverStop` keeps its owner. */
export const setIdleChoices = endpoint({
  method: 'PUT',
  path: '/api/v1/workspaces/:workspace/idle-policy',
  tag,
  summary: 'Replace the choices of when a workspace stops and starts, within the bounds of the installation',
  permission: 'workspace:operate',
  params,
  body: IdleChoices,
  reply: WorkspaceActivity,
});
export const keepWorkspace = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/keep',
  tag,
  summary: 'Count the days without a person from now; ends its archiving and an announced deletion',
  permission: 'workspace:operate',
  params,
  body: z.object({}).optional(),
  reply: WorkspaceActivity,
  idempotent: true,
});
export const createLease = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/leases',
  tag,
  summary: 'Keep a workspace awake for some time',
  permission: 'workspace:operate',
  params,
  body: LeaseInput,
  reply: Lease,
  status: 201,
  idempotent: true,
});
export const endLease = endpoint({
  method: 'DELETE',
  path: '/api/v1/workspaces/:workspace/leases/:lease',
  tag,
  summary: 'End a lease before it expires',
  permission: 'workspace:operate',
  params: params.extend({ lease: Id }),
});

export const createAgentLease = endpoint({
  method: 'POST',
  path: '/api/v1/agent/leases',
  tag: 'agent',
  summary: 'Keep the workspace awake: for programs in it',
  permission: 'agent',
  body: LeaseInput,
  reply: Lease,
  status: 201,
});
export const endAgentLease = endpoint({
  method: 'DELETE',
  path: '/api/v1/agent/leases/:lease',
  tag: 'agent',
  summary: 'End a lease of the workspace',
  permission: 'agent',
  params: z.object({ lease: Id }),
});
/** Held open by agents whose template has a shutdown script, so that a stop need not wait for the next report. */
export const awaitShutdown = endpoint({
  method: 'POST',
  path: '/api/v1/agent/shutdown/wait',
  tag: 'agent',
  summary: 'Wait until the workspace has to prepare for a stop; answers within 25 s',
  permission: 'agent',
  body: z.object({ waitMs: z.number().int().min(0).max(25_000).default(25_000) }).optional(),
  reply: z.object({ shutdown: ShutdownRequest.nullable() }),
});
export const postAgentShutdown = endpoint({
  method: 'POST',
  path: '/api/v1/agent/shutdown',
  tag: 'agent',
  summary: 'Answer a request to prepare for a stop',
  permission: 'agent',
  body: z.discriminatedUnion('state', [
    z.object({ id: Id, state: z.literal('vetoed'), activity: AgentActivity }),
    z.object({
      id: Id,
      state: z.literal('ready'),
      activity: AgentActivity,
      exitCode: z
        .number()
        .int()
        .min(-(2 ** 31))
        .max(2 ** 31 - 1)
        .nullable(),
      timedOut: z.boolean(),
    }),
  ]),
});
