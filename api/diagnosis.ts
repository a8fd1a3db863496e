import { z } from 'zod';
import { PathKind } from './agent.ts';
import { incidentCauses, incidentKinds, maxReportAgeMs, segments, windowMs } from './diagnosis-values.ts';
import { endpoint } from './endpoint.ts';
import { Count, Id, Moment, PageQuery, page, plainText, WorkspaceRef } from './names.ts';

// Clocks of clients and agents are not trusted: they report ages, and the server knows the time.

const Ms = z.number().min(0).max(1e9);
const Age = z.number().min(0).max(maxReportAgeMs);
const Percent = z.number().min(0).max(1e5);

/** Round trips over one leg within a window. */
export const LegSample = z.strictObject({
  p50: Ms,
  p95: Ms,
  max: Ms,
  count: z.number().int().min(1).max(10_000),
  unanswered: z.number().int().min(0).max(10_000).default(0).describe('Probes without an answer so far'),
});
export type LegSample = z.infer<typeof LegSample>;

/** How busy a machine was within a window, as seen by a process of ours. Null: not measured there. */
export const HostSample = z.strictObject({
  loopDelayMs: Ms.describe('How late its timers ran; the latest but one'),
  cpuWaitPercent: Percent.nullable().describe('Of the window: it was ready to run, and waited for a CPU'),
  throttledPercent: Percent.nullable().describe('Of the window: it was over its CPU limit'),
  memoryPercent: Percent.nullable().describe('Memory used, of the limit'),
});
export type HostSample = z.infer<typeof HostSample>;

const Window = z.strictObject({
  agoMs: Age.describe('How long ago it began'),
  ms: z
    .number()
    .min(1)
    .max(6 * windowMs),
  host: HostSample,
});
const RecordedPath = z.strictObject({ kind: PathKind, via: plainText(300) });

/** Ten seconds of a session, as its client saw them. */
export const ClientWindow = Window.extend({
  path: RecordedPath.nullable().describe('At its end; null: none'),
  toSatellite: LegSample.nullable().describe('Null on direct paths'),
  satelliteToAgent: LegSample.nullable().describe('Measured by the agent; null if it is not known'),
  toAgent: LegSample.nullable().describe('Over the whole path'),
  bytes: z.number().min(0).max(1e13).describe('Both directions added'),
});
export type ClientWindow = z.infer<typeof ClientWindow>;

/** Ten seconds of a workspace, as its agent saw them. */
export const AgentWindow = Window.extend({
  outOfMemoryKills: z
    .number()
    .int()
    .min(0)
    .max(1e6)
    .describe('Processes of the workspace that the kernel ended'),
});
export type AgentWindow = z.infer<typeof AgentWindow>;

const moment = { agoMs: Age };
const code = z
  .string()
  .max(60)
  .regex(/^[a-z][a-z0-9-]*$/, 'must be a code');
/** What happened to a session. */
export const ClientEvent = z.discriminatedUnion('kind', [
  z.strictObject({
    ...moment,
    kind: z.enum(['opened', 'moved', 'resumed']),
    path: RecordedPath,
  }),
  z.strictObject({
    ...moment,
    kind: z.literal('lost'),
    path: RecordedPath,
    reason: code,
    silentMs: Ms.describe('How long nothing had been heard when the loss was noticed'),
  }),
  z.strictObject({ ...moment, kind: z.literal('stalled'), path: RecordedPath, ms: Ms }),
  z.strictObject({ ...moment, kind: z.literal('slept'), ms: Ms.describe('It began this long before') }),
  z.strictObject({ ...moment, kind: z.literal('network-changed') }),
  z.strictObject({ ...moment, kind: z.literal('server-unreachable'), ms: Ms }),
  z.strictObject({ ...moment, kind: z.literal('udp-failed'), reason: code }),
  z.strictObject({ ...moment, kind: z.literal('ended'), reason: code.nullable() }),
]);
export type ClientEvent = z.infer<typeof ClientEvent>;

export const Incident = z.object({
  id: Id,
  session: Id,
  workspace: z.string().describe('owner/name'),
  at: Moment.describe('When a person could notice it first'),
  endedAt: Moment.nullable().describe('Null: it continues'),
  kind: z.enum(incidentKinds),
  cause: z.enum(Object.keys(incidentCauses) as [keyof typeof incidentCauses]),
  segment: z.enum(segments),
  confidence: z.number().min(0).max(1),
  path: z.string().nullable().describe('The satellite, or the kind of direct path, at its begin'),
  summary: z.string().describe('One sentence: what was noticeable, how long, and why'),
  evidence: z.array(z.string()),
  ruledOut: z.array(z.string()).describe('What it was not, with the reason; for unknown causes'),
  advice: z.string().nullable(),
});
export type Incident = z.infer<typeof Incident>;

const tag = 'diagnosis';
const params = z.object({ workspace: WorkspaceRef });

export const postRecording = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/recordings',
  tag,
  summary: 'Add what a client saw of its session, and explain its incidents',
  permission: 'workspace:connect',
  params,
  body: z.strictObject({
    id: Id.describe('Of the recording: a UUID that the client chose when the session opened'),
    batch: Count.describe('Counts up from 1, so that a batch that is sent twice is stored once'),
    startedAgoMs: z.number().min(0).max(1e11),
    client: z.strictObject({ version: plainText(64), platform: plainText(40) }),
    windows: z.array(ClientWindow).max(400),
    events: z.array(ClientEvent).max(200),
  }),
  reply: z.object({
    incidents: z.array(Incident).describe('Of this recording in the last ten minutes, oldest first'),
  }),
});
export const postAgentConditions = endpoint({
  method: 'POST',
  path: '/api/v1/agent/conditions',
  tag,
  summary: 'Report the conditions in the workspace while it has sessions',
  permission: 'agent',
  body: z.strictObject({
    process: z.string().max(64).describe('Random, per agent process'),
    batch: Count.describe('Counts up from 1, so that a batch that is sent twice is stored once'),
    windows: z.array(AgentWindow).max(400),
  }),
});
export const listIncidents = endpoint({
  method: 'GET',
  path: '/api/v1/incidents',
  tag,
  summary: 'List what went wrong in your own sessions, or in the given one, and why, newest first',
  permission: 'workspace:connect',
  query: PageQuery.extend({
    workspace: WorkspaceRef.optional().describe('Only sessions with this workspace'),
    session: Id.optional().describe("Only this one, which can be somebody else's with `session:read`"),
    since: Moment.optional(),
    until: Moment.optional(),
  }),
  reply: page(Incident),
});
