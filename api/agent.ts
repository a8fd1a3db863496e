import { z } from 'zod';
import { AgentActivity, IdleReply, NoActivity } from './activity.ts';
import { endpoint } from './endpoint.ts';
import { Count, HostPort, Id, Moment, maxInteger, plainText } from './names.ts';

/** The environment variables of the agent. It gets everything else from the server when it registers. */
export const agentEnvironment = {
  /** The URL of the server from inside the workspace. */
  serverUrl: 'CDE_SERVER_URL',
  /**
   * The token of the build (`cde_agent_…`), or `stdin` if the agent has to read it from there. The agent removes the
   * variable from its environment, but /proc/PID/environ keeps what a process was started with.
   */
  token: 'CDE_AGENT_TOKEN',
  /** A folder with the server's Unix sockets, if the workspace has its own network on the server's machine. */
  gateway: 'CDE_GATEWAY',
  /** HOST:PORT on the server's machine that forwards to this port of the workspace's network, for direct connections. */
  directForward: 'CDE_DIRECT_FORWARD',
  /** `yes`: the workspace shares the machine's network, so the agent reports only ports of its own processes. */
  sharedNetwork: 'CDE_SHARED_NETWORK',
  /** The memory limit in bytes, if the workspace cannot see its own control group. */
  memoryLimit: 'CDE_MEMORY_LIMIT',
  /** Certificate authorities, in PEM, that the agent trusts beside Node's. */
  certificateAuthorities: 'CDE_CERTIFICATE_AUTHORITIES',
} as const;
export const tokenOnStdin = 'stdin';

// What an agent reports reaches other people's dashboards, terminals and known_hosts files, and a developer can make
// the agent report anything. So every field has a pattern and a maximum length.

/** SHA-256 in base64url. The last character carries only four bits, so that each key has one spelling. */
const sha256 = /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/;
/** 19 fixed bytes (type name and key length), the first two bits of the key, and the rest of it. */
const ed25519Line = /^ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-P][A-Za-z0-9+/]{42}$/;
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
  version: plainText(64),
  hostname: plainText(255),
});

const Satellite = z.object({
  name: z.string(),
  url: z.string(),
  stun: HostPort.optional().describe('HOST:PORT of its STUN server (UDP)'),
});

/** How a session can reach an agent: through a satellite, at the agent's addresses, or by UDP through NATs. */
export const PathKind = z.enum(['relay', 'direct-tcp', 'direct-udp']);
export type PathKind = z.infer<typeof PathKind>;

/** Where an agent listens for direct connections. Clients learn it inside the session. */
export const DirectListen = z.strictObject({
  port: z.number().int().min(0).max(65535).default(0).describe('0: any free one'),
  addresses: z
    .array(HostPort)
    .max(8)
    .default([])
    .describe(
      'HOST:PORT at which it is reachable if not at the addresses of its machine: a NodePort, a forwarded port',
    ),
});
export type DirectListen = z.infer<typeof DirectListen>;

/** The reply to a registration. An agent that restarted registers again with the same token. */
export const AgentManifest = z.object({
  workspaceId: Id,
  workspace: z.string().describe('owner/name'),
  buildId: Id,
  username: z.string().describe('The user name inside the workspace'),
  home: z.string().describe('The absolute path of the home'),
  env: z.record(z.string(), z.string()),
  startup: z
    .object({ script: z.string(), timeoutMs: z.number().int() })
    .nullable()
    .describe('Null if there is none, or if this build has already run it'),
  hasShutdownScript: z
    .boolean()
    .default(false)
    .describe(
      'The agent then waits for requests to shut down instead of learning of them with its next report',
    ),
  ticketKeys: z
    .array(z.string())
    .describe('The Ed25519 public keys (SPKI, base64url) that sign valid tickets'),
  satellites: z.array(
    Satellite.extend({
      // Servers of earlier releases send one token for all satellites.
      listenToken: z
        .string()
        .optional()
        .describe(
          'Lets the agent listen for this workspace at this satellite and no other. Signed; registering again renews it',
        ),
    }),
  ),
  paths: z.array(PathKind).default(['relay']).describe('The kinds of path that sessions can use'),
  direct: DirectListen.nullable().default(null).describe('Null if no direct path is allowed'),
  listenToken: z
    .string()
    .describe('For agents of earlier releases: accepted by the satellites inside the server'),
  listenTokenExpiresAt: Moment,
  statsEveryMs: z.number().int(),
});
export type AgentManifest = z.infer<typeof AgentManifest>;

export const AgentLogLine = z.object({
  /** Counts up from 1 within one agent process, so that a batch that is sent twice is stored once. */
  seq: Count.min(1),
  at: Moment,
  source: z.enum(['agent', 'startup', 'shutdown']),
  stream: z.enum(['stdout', 'stderr']),
  text: z.string().max(16384),
});
export type AgentLogLine = z.infer<typeof AgentLogLine>;

const bytes = z.number().min(0).max(1e18);

export const AgentStats = z.object({
  at: Moment,
  cpuPercent: z.number().min(0).max(1e7).describe('Of one core: 150 means one and a half cores'),
  load1: z.number().min(0).max(1e7).describe('Of the whole machine, not of the workspace'),
  memoryUsedBytes: bytes,
  memoryLimitBytes: bytes.nullable().describe('Null if the workspace has no limit'),
  homeUsedBytes: bytes.nullable().describe('Null until it was measured'),
  homeTotalBytes: bytes.nullable().describe('Null if the home shares a disk and has no limit'),
  homeFreeBytes: bytes
    .nullable()
    .default(null)
    .describe('What can still be written to the disk of the home; null if it is not known'),
  homeFullPercent: z
    .number()
    .min(0)
    .max(100)
    .nullable()
    .default(null)
    .describe('How full that disk is, of its own or shared with others; a warning is shown from 90 on'),
  openPorts: z
    .array(z.object({ port: z.number().int().min(1).max(65535), process: plainText(256) }))
    .max(1000),
  sessions: z
    .array(z.object({ kind: z.enum(['shell', 'exec', 'sftp', 'port']), startedAt: Moment }))
    .max(1000),
  satellites: z
    .array(z.object({ url: z.string().max(300), rttMs: z.number().min(0).max(1e9) }))
    .max(20)
    .default([])
    .describe("The agent's round-trip time to each satellite at which it listens"),
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
export const bootAgent = endpoint({
  method: 'POST',
  path: '/api/v1/agent/boot',
  tag,
  summary:
    'Exchange the boot secret of a virtual machine for the token of its agent, until that has registered',
  permission: 'public',
  body: z.object({ build: Id, secret: z.string().max(100) }),
  reply: z.object({
    token: z.string(),
    version: z
      .string()
      .describe('Of the program, which GET /api/v1/agent/program/VERSION returns as .tar.gz'),
  }),
});
export const agentProgramPath = '/api/v1/agent/program/:version';
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
  summary: 'Report the state of the startup script',
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
  summary: 'Report stats, at regular intervals',
  permission: 'agent',
  body: AgentStats.extend({
    // Agents of earlier releases report none.
    activity: z.union([AgentActivity, NoActivity]).optional(),
  }),
  reply: z.object({
    satellites: z.array(Satellite).describe('The current satellites. If they changed, register again'),
    idle: IdleReply.nullable().optional().describe('When the workspace stops. Null: as the agent knows'),
  }),
});

/** Sent by agents and satellites while they have sessions. */
export const ActiveUsers = z.object({ users: z.array(Id).max(50_000).describe('Users with a session here') });
export const RevokedUsers = z.object({
  endUsers: z
    .array(Id)
    .describe('Users whose sessions must end because their access was revoked. Empty: ask again'),
});
export const checkAgentUsers = endpoint({
  method: 'POST',
  path: '/api/v1/agent/users/check',
  tag,
  summary: 'Check which users have lost access, before the first stream of each session',
  permission: 'agent',
  body: z.object({ users: z.array(Id).max(100) }),
  reply: z.object({
    endUsers: z.array(Id),
    usernames: z
      .record(Id, z.string())
      .default({})
      .describe('Of the others by id, to say who was active: tickets do not name their user'),
  }),
});
export const watchAgentUsers = endpoint({
  method: 'POST',
  path: '/api/v1/agent/users',
  tag,
  summary: 'Wait until access of one of the users is revoked; answers within 25 s',
  permission: 'agent',
  body: ActiveUsers,
  reply: RevokedUsers,
});
