import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { Count, HostPort, Id, Moment, maxInteger } from './names.ts';

/** The environment that a provider starts an agent with; all else it learns by registering. */
export const agentEnvironment = {
  /** The server's URL as the workspace reaches it. */
  serverUrl: 'CDE_SERVER_URL',
  /**
   * The per-build token: `cde_agent_…`; or `stdin`, and it is all that there is to read on stdin. The agent
   * takes the variable out of its environment at once, but /proc/PID/environ shows what a process began with.
   */
  token: 'CDE_AGENT_TOKEN',
  /** A folder with the server's Unix sockets, where the workspace has a network of its own on the server's machine. */
  gateway: 'CDE_GATEWAY',
  /** HOST:PORT of the server's machine that leads to this port of the workspace's own network: for direct connections. */
  directForward: 'CDE_DIRECT_FORWARD',
  /** `yes`: the workspace shares its network with the machine, so that only its own listeners are its business. */
  sharedNetwork: 'CDE_SHARED_NETWORK',
  /** The workspace's memory limit in bytes, where it holds and the workspace does not see its control group. */
  memoryLimit: 'CDE_MEMORY_LIMIT',
} as const;
export const tokenOnStdin = 'stdin';

// What an agent says reaches other people's dashboards, terminals and known_hosts files, and the developer
// of its workspace can make it say anything: so each of its words has a form and a length.

/** SHA-256 in base64url; the last letter carries four bits only, so that one key has one spelling. */
const sha256 = /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/;
/** 19 fixed bytes (the type's name, the key's length), the first two bits of the key, and the rest of it. */
const ed25519Line = /^ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-P][A-Za-z0-9+/]{42}$/;
const plain = (maxLength: number) =>
  z
    .string()
    .max(maxLength)
    .regex(/^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]*$/u, 'text without control characters');

export const RegisterAgent = z.object({
  tlsPublicKey: z
    .string()
    .max(43)
    .regex(sha256, 'a SHA-256 in base64url')
    .describe("SHA-256 of the agent's TLS SubjectPublicKeyInfo, base64url"),
  sshHostKey: z
    .string()
    .max(100)
    .regex(ed25519Line, 'ssh-ed25519 and the key, one line, no comment')
    .describe('OpenSSH public key line: ssh-ed25519 AAAA…'),
  version: plain(64),
  hostname: plain(255),
});

const Satellite = z.object({
  name: z.string(),
  url: z.string(),
  stun: HostPort.optional().describe('Of its STUN server, by UDP'),
});

/** How a session may reach an agent: through a satellite, at the agent's own addresses, or by UDP through NATs. */
export const PathKind = z.enum(['relay', 'direct-tcp', 'direct-udp']);
export type PathKind = z.infer<typeof PathKind>;

/** Where an agent listens for direct connections; clients learn it inside the session. */
export const DirectListen = z.strictObject({
  port: z.number().int().min(0).max(65535).default(0).describe('0: any free one'),
  addresses: z
    .array(HostPort)
    .max(8)
    .default([])
    .describe(
      "Where it is reached, HOST:PORT, if not at its machine's own addresses: a NodePort, a forwarded port",
    ),
});
export type DirectListen = z.infer<typeof DirectListen>;

/** What the agent is told when it registers. Registering again with the same token is allowed (it restarted). */
export const AgentManifest = z.object({
  workspaceId: Id,
  workspace: z.string().describe('owner/name'),
  buildId: Id,
  username: z.string().describe('The name the developer has inside'),
  home: z.string().describe('Absolute path of the home'),
  env: z.record(z.string(), z.string()),
  startup: z
    .object({ script: z.string(), timeoutMs: z.number().int() })
    .nullable()
    .describe('Null when there is none or this build has run it already'),
  ticketKeys: z
    .array(z.string())
    .describe('The Ed25519 public keys (SPKI, base64url) whose tickets are good'),
  satellites: z.array(
    Satellite.extend({
      // A server of an earlier release has one for all of them.
      listenToken: z
        .string()
        .optional()
        .describe(
          'Shown to this satellite to listen for this workspace; no other takes it. Signed, and renewed by registering again',
        ),
    }),
  ),
  paths: z.array(PathKind).default(['relay']).describe('The kinds of path that may carry sessions'),
  direct: DirectListen.nullable().default(null).describe('Null where no direct path is allowed'),
  listenToken: z
    .string()
    .describe(
      "For agents of earlier releases, which show it everywhere: the server's own satellites take it",
    ),
  listenTokenExpiresAt: Moment,
  statsEveryMs: z.number().int(),
});
export type AgentManifest = z.infer<typeof AgentManifest>;

export const AgentLogLine = z.object({
  /** Counts up from 1 within one agent process, so that a resent batch is stored once. */
  seq: Count.min(1),
  at: Moment,
  source: z.enum(['agent', 'startup']),
  stream: z.enum(['stdout', 'stderr']),
  text: z.string().max(16384),
});
export type AgentLogLine = z.infer<typeof AgentLogLine>;

/** An exabyte is enough for everybody. */
const bytes = z.number().min(0).max(1e18);

export const AgentStats = z.object({
  at: Moment,
  cpuPercent: z.number().min(0).max(1e7).describe('Of one core: 150 means one and a half cores'),
  load1: z.number().min(0).max(1e7).describe("Of the whole machine, so no figure of the workspace's own"),
  memoryUsedBytes: bytes,
  memoryLimitBytes: bytes.nullable().describe('Null where the workspace has no limit of its own'),
  homeUsedBytes: bytes.nullable().describe('Null before it was counted for the first time'),
  homeTotalBytes: bytes.nullable().describe('Null where the home shares a disk and is not limited'),
  openPorts: z.array(z.object({ port: z.number().int().min(1).max(65535), process: plain(256) })).max(1000),
  sessions: z
    .array(z.object({ kind: z.enum(['shell', 'exec', 'sftp', 'port']), startedAt: Moment }))
    .max(1000),
  satellites: z
    .array(z.object({ url: z.string().max(300), rttMs: z.number().min(0).max(1e9) }))
    .max(20)
    .default([])
    .describe("The agent's round trip to each satellite that it listens at"),
});
export type AgentStats = z.infer<typeof AgentStats>;

const tag = 'agent';
export const registerAgent = endpoint({
  method: 'POST',
  path: '/api/v1/agent/register',
  tag,
  summary: 'Register the agent of a build',
  permission: 'agent',
  body: RegisterAgent,
  reply: AgentManifest,
});
export const postAgentLogs = endpoint({
  method: 'POST',
  path: '/api/v1/agent/logs',
  tag,
  summary: 'Append log lines',
  permission: 'agent',
  body: z.object({
    process: z.string().max(64).describe('Random, per agent process'),
    lines: z.array(AgentLogLine).max(500),
  }),
});
export const postAgentStartup = endpoint({
  method: 'POST',
  path: '/api/v1/agent/startup',
  tag,
  summary: 'Report the startup script',
  permission: 'agent',
  body: z.discriminatedUnion('state', [
    z.object({ state: z.literal('running') }),
    z.object({
      state: z.literal('done'),
      exitCode: z.number().int().min(-maxInteger).max(maxInteger).nullable(),
      signal: z.string().max(40).nullable(),
      timedOut: z.boolean(),
      durationMs: z.number().min(0).max(1e12),
    }),
    z.object({ state: z.literal('none') }),
  ]),
});
export const postAgentStats = endpoint({
  method: 'POST',
  path: '/api/v1/agent/stats',
  tag,
  summary: 'Report stats; also the sign of life',
  permission: 'agent',
  body: AgentStats,
  reply: z.object({
    satellites: z.array(Satellite).describe('As of now: where they are others, register again'),
  }),
});

/** Asked by agents and satellites as long as anybody's session is there. */
export const ActiveUsers = z.object({ users: z.array(Id).max(50_000).describe('Whose sessions are here') });
export const RevokedUsers = z.object({
  endUsers: z.array(Id).describe('Whose sessions are to end: they may no longer; none: ask again'),
});
export const checkAgentUsers = endpoint({
  method: 'POST',
  path: '/api/v1/agent/users/check',
  tag,
  summary: 'Which of the users may have no sessions; asked before the first stream of each session',
  permission: 'agent',
  body: z.object({ users: z.array(Id).max(100) }),
  reply: z.object({ endUsers: z.array(Id) }),
});
export const watchAgentUsers = endpoint({
  method: 'POST',
  path: '/api/v1/agent/users',
  tag,
  summary: 'Wait until one of the users may no longer have sessions; answers within 25 s',
  permission: 'agent',
  body: ActiveUsers,
  reply: RevokedUsers,
});
