import { z } from 'zod';
import { ActiveUsers, RevokedUsers } from './agent.ts';
import { endpoint } from './endpoint.ts';
import { Count, HostPort, Id, Moment, WildcardName } from './names.ts';

/** What a satellite is called. The server's own are `embedded`, and `embedded-…` of further replicas. */
export const SatelliteName = z
  .string()
  .max(40)
  .regex(
    /^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$/,
    'use lower-case letters, digits and dashes, starting with a letter, at most 40',
  )
  .refine((name) => !/^embedded(-|$)/.test(name), "`embedded` is the server's own");

const Region = z.string().max(80);

/** What a satellite carries at the moment. */
export const SatelliteLoad = z.object({
  sessions: Count,
  agents: Count.describe('Workspaces whose agent waits here or serves a session'),
  bytesPerSecond: z.number().min(0).max(1e15).describe('Relayed since the last report, both ways together'),
  memoryBytes: z.number().min(0).max(1e15),
  loopDelayMs: z.number().min(0).max(1e12).describe('99th percentile of the delay of its event loop'),
});
export type SatelliteLoad = z.infer<typeof SatelliteLoad>;

/** What a satellite says of itself. `stopping`: it was told to end, and takes nobody new. */
export const satelliteConditions = ['serving', 'draining', 'drained', 'stopping'] as const;
export type SatelliteCondition = (typeof satelliteConditions)[number];

/**
 * `new`: added, and never seen. `online`: it serves. `draining`: it takes nobody new and sends its sessions
 * elsewhere. `drained`: none is left. `stopping`: its program ends. `away`: not heard of for 45 s; sessions
 * that it has may go on all the same.
 */
export const satelliteStates = ['new', 'online', 'draining', 'drained', 'stopping', 'away'] as const;

/** What a satellite serves to browsers. It reads what passes there; of sessions that it relays it never does. */
const SatelliteWeb = z.object({
  portHost: WildcardName.nullable().describe(
    'Under which it serves ports: `*.tokyo.dev.example.com`; null: terminals only',
  ),
});
export type SatelliteWeb = z.infer<typeof SatelliteWeb>;

/** A relay in some region. The server carries one of its own, which is not among these. */
export const Satellite = z.object({
  id: Id,
  name: SatelliteName,
  region: z.string(),
  state: z.enum(satelliteStates),
  url: z.string().nullable().describe('As clients and agents reach it; null until it has registered'),
  stun: z.string().nullable().describe('HOST:PORT of its STUN server, by UDP; null without one'),
  version: z.string().nullable(),
  hostname: z.string().nullable(),
  load: SatelliteLoad.nullable().describe('Null unless it was heard of in the last 45 s'),
  draining: z.boolean().describe('An administrator wants it empty'),
  web: SatelliteWeb.nullable().describe('What it serves to browsers; null: nothing'),
  seenAt: Moment.nullable(),
  createdAt: Moment,
});
export type Satellite = z.infer<typeof Satellite>;

const plain = (maxLength: number) =>
  z
    .string()
    .max(maxLength)
    .regex(/^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]*$/u, 'text without control characters');

/** What a satellite says when it starts, and again whenever the server may not know it any more. */
export const RegisterSatellite = z.object({
  // Everybody appends a path to it, and the pages of the dashboard send browsers there.
  url: z
    .url({ protocol: /^https?$/ })
    .max(300)
    .regex(/^[^\s?#@\\\p{Cc}]*$/u, 'a URL without user, query and fragment'),
  stun: HostPort.nullable().default(null).describe('Where it answers STUN, by UDP'),
  version: plain(64),
  hostname: plain(255),
  region: Region.optional().describe('Where it was added without one; it stays'),
});

const SharedConfig = z.object({
  drain: z.boolean().describe('Take nobody new, and send the sessions elsewhere'),
  ticketKeys: z
    .array(z.string())
    .describe('The Ed25519 public keys (SPKI, base64url) whose tickets are good'),
  // A server of an older release lets it serve none.
  web: SatelliteWeb.nullable().default(null),
  dashboard: z.string().default('').describe('The origin of the dashboard, whose pages open terminals here'),
});
export const SatelliteConfig = SharedConfig.extend({
  endUsers: z.array(Id).describe('Whose sessions are to end: they may no longer'),
});
export type SatelliteConfig = z.infer<typeof SatelliteConfig>;

export const SatelliteManifest = SharedConfig.extend({
  // A server of an earlier release does not say.
  id: Id.optional().describe('Which listen tokens for this satellite name'),
  name: z.string(),
  region: z.string(),
  heartbeatEveryMs: z.number().int(),
});
export type SatelliteManifest = z.infer<typeof SatelliteManifest>;

const tag = 'satellites';
const params = z.object({ satellite: z.string().max(80).describe("A satellite's name or id") });

export const startNetcheck = endpoint({
  method: 'POST',
  path: '/api/v1/netcheck',
  tag,
  summary: 'The satellites, and a token to measure the ways to them with',
  permission: 'workspace:connect',
  reply: z.object({
    token: z.string().describe('For throughput tests at each of them; opens nothing'),
    expiresAt: Moment,
    satellites: z.array(
      z.object({
        name: z.string(),
        url: z.string(),
        region: z.string(),
        stun: HostPort.optional().describe('Of its STUN server and probe trains, by UDP'),
      }),
    ),
  }),
});
export const listSatellites = endpoint({
  method: 'GET',
  path: '/api/v1/satellites',
  tag,
  summary: 'List satellites',
  permission: 'satellite:read',
  reply: z.object({ items: z.array(Satellite) }),
});
export const getSatellite = endpoint({
  method: 'GET',
  path: '/api/v1/satellites/:satellite',
  tag,
  summary: 'Show a satellite',
  permission: 'satellite:read',
  params,
  reply: Satellite,
});
export const addSatellite = endpoint({
  method: 'POST',
  path: '/api/v1/satellites',
  tag,
  summary: 'Add a satellite; its token is shown once',
  permission: 'satellite:write',
  body: z.object({ name: SatelliteName, region: Region.default('') }),
  reply: z.object({ token: z.string().describe('Shown once: `cde_satellite_…`'), satellite: Satellite }),
  status: 201,
});
export const drainSatellite = endpoint({
  method: 'POST',
  path: '/api/v1/satellites/:satellite/drain',
  tag,
  summary: 'Empty a satellite, or let it serve again',
  permission: 'satellite:write',
  params,
  body: z.object({ draining: z.boolean().default(true) }),
  reply: Satellite,
  idempotent: true,
});
export const setSatelliteWeb = endpoint({
  method: 'PUT',
  path: '/api/v1/satellites/:satellite/web',
  tag,
  summary: 'Let a satellite serve terminals and ports to browsers, or no longer',
  permission: 'satellite:write',
  params,
  body: z.object({
    web: SatelliteWeb.nullable().describe('Null: it serves browsers nothing, and reads nothing'),
  }),
  reply: Satellite,
});
export const removeSatellite = endpoint({
  method: 'DELETE',
  path: '/api/v1/satellites/:satellite',
  tag,
  summary: 'Forget a satellite; its token is refused, and it empties itself and ends',
  permission: 'satellite:write',
  params,
});
export const registerSatellite = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/register',
  tag,
  summary: 'Register a satellite that has started',
  permission: 'satellite',
  body: RegisterSatellite,
  reply: SatelliteManifest,
});
export const postSatelliteHeartbeat = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/heartbeat',
  tag,
  summary: 'Report load and health; also the sign of life',
  permission: 'satellite',
  body: z.object({
    condition: z.enum(satelliteConditions),
    version: plain(64),
    load: SatelliteLoad,
    users: z.array(Id).max(50_000).describe('Whose sessions are here'),
  }),
  reply: SatelliteConfig,
});
export const watchSatelliteUsers = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/users',
  tag,
  summary: 'Wait until one of the users may no longer have sessions; answers within 25 s',
  permission: 'satellite',
  body: ActiveUsers,
  reply: RevokedUsers,
});
