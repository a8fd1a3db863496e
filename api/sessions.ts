import { z } from 'zod';
import { PathKind } from './agent.ts';
import { HostSample, LegSample } from './diagnosis.ts';
import { incidentCauses, incidentKinds, segments } from './diagnosis-values.ts';
import { endpoint } from './endpoint.ts';
import { Count, Id, Moment, PageQuery, page, plainText, Username, WorkspaceRef } from './names.ts';
import { networkGroupings, resolutions } from './session-values.ts';
import { isTimeZone } from './time-zones.ts';

const SessionPath = z.object({
  kind: PathKind,
  via: z.string().describe('The name of the satellite, or the address of a direct path as far as it is kept'),
});

/** A session of `cde` with a workspace, as far as it was recorded. */
export const Session = z.object({
  id: Id,
  user: z.string(),
  workspace: z.string().describe('owner/name'),
  workspaceId: Id,
  client: z.object({ version: z.string(), platform: z.string() }),
  path: SessionPath.nullable().describe('The last one'),
  region: z.string().nullable().describe('Of the satellite on that path; null on direct paths'),
  startedAt: Moment,
  lastSeenAt: Moment.describe('When its client reported last. It reports while somebody uses the session'),
  endedAt: Moment.nullable().describe('Null: it continues, or its client could not say that it ended'),
  isActive: z.boolean().describe('It has not ended, and its client reported in the last two minutes'),
  incidents: Count.describe('How many incidents it had'),
});
export type Session = z.infer<typeof Session>;

/** What one session saw in ten seconds, a minute or an hour. */
export const SessionStretch = z.object({
  at: Moment.describe('When it began'),
  ms: z.number().describe('How much of it was recorded: nothing is while nobody uses the session'),
  slowMs: z.number().describe('How much of that had noticeably late answers'),
  path: SessionPath.nullable().describe('The one used for the most time; null: none'),
  region: z.string().nullable(),
  toSatellite: LegSample.nullable(),
  satelliteToAgent: LegSample.nullable(),
  toAgent: LegSample.nullable(),
  bytes: z.number(),
  host: HostSample.describe('Of the machine that runs the client'),
});
export type SessionStretch = z.infer<typeof SessionStretch>;

const tag = 'diagnosis';

export const listSessions = endpoint({
  method: 'GET',
  path: '/api/v1/sessions',
  tag,
  summary:
    'List recorded sessions, the newest first: your own, or those of everybody if your role can see them',
  permission: 'session:read',
  query: PageQuery.extend({
    user: Username.optional().describe('Only of this user'),
    workspace: WorkspaceRef.optional(),
    state: z.enum(['active', 'past']).optional(),
    since: Moment.optional().describe('Only those that were seen after this'),
    until: Moment.optional().describe('Only those that began before this'),
    path: PathKind.optional(),
    region: plainText(80).optional(),
    clientVersion: plainText(64).optional(),
  }),
  reply: page(Session),
});

export const getSessionWindows = endpoint({
  method: 'GET',
  path: '/api/v1/sessions/:session/windows',
  tag,
  summary: 'Read what a session recorded, by leg',
  permission: 'session:read',
  params: z.object({ session: Id }),
  query: z.object({
    from: Moment.optional().describe('By default its start'),
    to: Moment.optional().describe('By default now'),
    resolution: z
      .enum(resolutions)
      .default('auto')
      .describe('`auto`: the finest that is retained and gives at most 1,500 points'),
    limit: z.coerce.number().int().min(1).max(5_000).default(2_000),
    after: z.string().max(400).optional().describe('`next` of the previous page'),
  }),
  reply: page(SessionStretch).extend({
    session: Session,
    resolution: z.enum(resolutions).exclude(['auto']),
  }),
});

const Legs = z.object({
  p50: z.number().describe('Half of the minutes, or hours, had a median of at most this'),
  p95: z.number().describe('In 95 % of them, 95 % of the round trips took at most this'),
  max: z.number(),
});
const LegSummaries = {
  toAgent: Legs.nullable(),
  toSatellite: Legs.nullable(),
  satelliteToAgent: Legs.nullable(),
};
const Use = {
  ms: z.number().describe('Time in use'),
  slowMs: z.number().describe('Of that, with noticeably late answers'),
  incidents: Count,
};

export const NetworkGroup = z.object({
  key: z.string().describe('A username, owner/name, region, version, kind of path, or hour of the day'),
  sessions: Count,
  ...Use,
  ...LegSummaries,
});
export type NetworkGroup = z.infer<typeof NetworkGroup>;

export const NetworkOverview = z.object({
  from: Moment,
  to: Moment,
  resolution: z.enum(['1m', '1h']).describe('Of the samples that it was made of'),
  ofEverybody: z.boolean().describe('False: only of your own sessions'),
  activeSessions: Count,
  total: NetworkGroup.omit({ key: true }),
  groups: z.array(NetworkGroup).describe('At most 200, those with the most noticeable latency first'),
  worst: z
    .array(z.object({ session: Session, ...Use, p95: z.number().nullable().describe('To the agent') }))
    .describe('The 20 sessions with the most noticeable latency and interruptions'),
  causes: z.array(
    z.object({
      cause: z.enum(Object.keys(incidentCauses) as [keyof typeof incidentCauses]),
      segment: z.enum(segments),
      kinds: z.partialRecord(z.enum(incidentKinds), Count),
      incidents: Count,
      sessions: Count,
      users: Count,
      ms: z.number().describe('How long they took together'),
    }),
  ),
  overTime: z.array(
    z.object({
      at: Moment,
      region: z.string().describe('`direct` for direct paths, `none` while there was no path'),
      ...{ ms: Use.ms, slowMs: Use.slowMs },
    }),
  ),
  causesOverTime: z.array(
    z.object({ at: Moment, cause: z.enum(Object.keys(incidentCauses) as [string]), incidents: Count }),
  ),
  byHour: z
    .array(
      z.object({
        region: z.string(),
        hour: z.number().int().min(0).max(23),
        ...{ ms: Use.ms, slowMs: Use.slowMs },
      }),
    )
    .describe('By region and hour of the day'),
});
export type NetworkOverview = z.infer<typeof NetworkOverview>;

export const getNetwork = endpoint({
  method: 'GET',
  path: '/api/v1/network',
  tag,
  summary: 'Summarize the connections of sessions: your own, or those of everybody if your role can see them',
  permission: 'session:read',
  query: z.object({
    from: Moment.optional().describe('By default 24 hours ago'),
    to: Moment.optional().describe('By default now'),
    by: z.enum(networkGroupings).default('region'),
    timeZone: z
      .string()
      .max(64)
      .default('UTC')
      .refine(isTimeZone, 'write the name of a time zone, such as Europe/Vienna')
      .describe('Of the hours of the day'),
  }),
  reply: NetworkOverview,
  maxConcurrent: 2,
});
