import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { Id, Moment } from './names.ts';

/** The environment that a provider starts an agent with; all else it learns by registering. */
export const agentEnvironment = {
  /** The server's URL as the workspace reaches it. */
  serverUrl: 'CDE_SERVER_URL',
  /** The per-build token: `cde_agent_…`. The agent takes it out of its environment at once. */
  token: 'CDE_AGENT_TOKEN',
} as const;

export const RegisterAgent = z.object({
  tlsPublicKey: z.string().describe("SHA-256 of the agent's TLS SubjectPublicKeyInfo, base64url"),
  sshHostKey: z.string().describe('OpenSSH public key line: ssh-ed25519 AAAA…'),
  version: z.string(),
  hostname: z.string(),
});

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
  satellites: z.array(z.object({ name: z.string(), url: z.string() })),
  listenToken: z
    .string()
    .describe(
      'Shown to a satellite to listen for this workspace; a signed token, renewed by registering again',
    ),
  listenTokenExpiresAt: Moment,
  statsEveryMs: z.number().int(),
});
export type AgentManifest = z.infer<typeof AgentManifest>;

export const AgentLogLine = z.object({
  /** Counts up from 1 within one agent process, so that a resent batch is stored once. */
  seq: z.number().int().min(1),
  at: Moment,
  source: z.enum(['agent', 'startup']),
  stream: z.enum(['stdout', 'stderr']),
  text: z.string().max(16384),
});
export type AgentLogLine = z.infer<typeof AgentLogLine>;

export const AgentStats = z.object({
  at: Moment,
  cpuPercent: z.number().describe('Of one core: 150 means one and a half cores'),
  load1: z.number(),
  memoryUsedBytes: z.number(),
  memoryLimitBytes: z.number().nullable(),
  homeUsedBytes: z.number(),
  homeTotalBytes: z.number(),
  openPorts: z.array(z.object({ port: z.number().int(), process: z.string() })),
  sessions: z.array(z.object({ kind: z.enum(['shell', 'exec', 'sftp', 'port']), startedAt: Moment })),
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
      exitCode: z.number().int().nullable(),
      signal: z.string().nullable(),
      timedOut: z.boolean(),
      durationMs: z.number(),
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
});
