import { z } from 'zod';
import { ActiveUsers, RevokedUsers } from './agent.ts';
import { endpoint } from './endpoint.ts';
import { Count, HostPort, Id, Moment, plainText, WildcardName } from './names.ts';

/** The name of a satellite. Those inside the server are named `embedded`, and `embedded-…` on further replicas. */
export const SatelliteName = z
  .string()
  .max(40)
  .regex(
    /^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$/,
    'use lower-case letters, digits and dashes, starting with a letter, at most 40',
  )
  .refine((name) => !/^embedded(-|$)/.test(name), "`embedded` is the server's own");

const Region = z.string().max(80);

/** The current load of a satellite. */
export const SatelliteLoad = z.object({
  sessions: Count,
  agents: Count.describe('Workspaces whose agent waits here or serves a session'),
  bytesPerSecond: z
    .number()
    .min(0)
    .max(1e15)
    .describe('Relayed since the last report, both directions added'),
  memoryBytes: z.number().min(0).max(1e15),
  loopDelayMs: z.number().min(0).max(1e12).describe('99th percentile of the delay of its event loop'),
});
export type SatelliteLoad = z.infer<typeof SatelliteLoad>;

/** What a satellite reports about itself. `stopping`: it was told to exit and accepts no new connections. */
export const satelliteConditions = ['serving', 'draining', 'drained', 'stopping'] as const;
export type SatelliteCondition = (typeof satelliteConditions)[number];

/**
 * `new`: added, but it has never connected. `online`: it serves. `draining`: it accepts no new connections and moves its
 * sessions to other satellites. `drained`: no session is left. `stopping`: its process exits. `away`: it has not reported
 * for 45 s; its sessions can still work.
 */
const satelliteStates = ['new', 'online', 'draining', 'drained', 'stopping', 'away'] as const;

/** What a satellite serves to browsers. It can read that traffic, but never the sessions that it relays. */
const SatelliteWeb = z.object({
  portHost: WildcardName.nullable().describe(
    'The wildcard name under which it serves ports: `*.tokyo.dev.example.com`. Null: it serves terminals only',
  ),
});
export type SatelliteWeb = z.infer<typeof SatelliteWeb>;

/** A relay in a region. The satellite inside the server is not listed. */
export const Satellite = z.object({
  id: Id,
  name: SatelliteName,
  region: z.string(),
  state: z.enum(satelliteStates),
  url: z.string().nullable().describe('The URL that clients and agents use. Null until it has registered'),
  stun: z.string().nullable().describe('HOST:PORT of its STUN server (UDP). Null if it has none'),
  version: z.string().nullable(),
  hostname: z.string().nullable(),
  load: SatelliteLoad.nullable().describe('Null if it has not reported in the last 45 s'),
  draining: z.boolean().describe('An administrator has asked to drain it'),
  web: SatelliteWeb.nullable().describe('What it serves to browsers. Null: nothing'),
  seenAt: Moment.nullable(),
  createdAt: Moment,
});
export type Satellite = z.infer<typeof Satellite>;

/** Sent by a satellite when it starts, and again when the server may have forgotten it. */
const RegisterSatellite = z.object({
  // Clients append a path to it, and the dashboard opens it in browsers.
  url: z
    .url({ protocol: /^https?$/ })
    .max(300)
    .regex(/^[^\s?#@\\]*$/, 'a URL without user, query and fragment')
    .refine((url) => !/\p{Cc}/u.test(url), 'must not contain control characters'),
  stun: HostPort.nullable().default(null).describe('Where it answers STUN (UDP)'),
  version: plainText(64),
  hostname: plainText(255),
  region: Region.optional().describe(
    'Used if the satellite was added without a region; it cannot change afterwards',
  ),
});

const SharedConfig = z.object({
  drain: z.boolean().describe('Accept no new connections and move the sessions to other satellites'),
  ticketKeys: z
    .array(z.string())
    .describe('The Ed25519 public keys (SPKI, base64url) that sign valid tickets'),
  // Servers of earlier releases do not send it.
  web: SatelliteWeb.nullable().default(null),
  dashboard: z
    .string()
    .default('')
    .describe('The origin of the dashboard, whose pages may open terminals here'),
});
export const SatelliteConfig = SharedConfig.extend({
  endUsers: z.array(Id).describe('Users whose sessions must end because their access was revoked'),
});
export type SatelliteConfig = z.infer<typeof SatelliteConfig>;

export const SatelliteManifest = SharedConfig.extend({
  // Servers of earlier releases do not send it.
  id: Id.optional().describe('The id that listen tokens for this satellite carry'),
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
  summary: 'List the satellites with a token to measure the network paths to them',
  permission: 'workspace:connect',
  reply: z.object({
    token: z.string().describe('For throughput tests at each satellite; it gives no other access'),
    expiresAt: Moment,
    version: z
      .string()
      .optional()
      .describe('The release of the server. Servers of earlier releases do not send it'),
    satellites: z.array(
      z.object({
        name: z.string(),
        url: z.string(),
        region: z.string(),
        stun: HostPort.optional().describe('Its STUN server and probe target (UDP)'),
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
  summary: 'Drain a satellite, or return it to service',
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
  summary: 'Set what a satellite serves to browsers',
  permission: 'satellite:write',
  params,
  body: z.object({
    web: SatelliteWeb.nullable().describe('Null: it serves nothing to browsers and can read no traffic'),
  }),
  reply: Satellite,
});
export const removeSatellite = endpoint({
  method: 'DELETE',
  path: '/api/v1/satellites/:satellite',
  tag,
  summary: 'Remove a satellite: its token stops working, and it drains and exits',
  permission: 'satellite:write',
  params,
});
export const registerSatellite = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/register',
  tag,
  summary: 'Register a satellite when it starts',
  permission: 'satellite',
  body: RegisterSatellite,
  reply: SatelliteManifest,
});
export const postSatelliteHeartbeat = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/heartbeat',
  tag,
  summary: 'Report load and health, at regular intervals',
  permission: 'satellite',
  body: z.object({
    condition: z.enum(satelliteConditions),
    version: plainText(64),
    load: SatelliteLoad,
    users: z.array(Id).max(50_000).describe('Users with a session here'),
  }),
  reply: SatelliteConfig,
});
export const watchSatelliteUsers = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/users',
  tag,
  summary: 'Wait until access of one of the users is revoked; answers within 25 s',
  permission: 'satellite',
  body: ActiveUsers,
  reply: RevokedUsers,
});
