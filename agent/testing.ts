/** For tests: a small HTTP server that takes what agents send, checked against the contract. */
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type AgentActivity,
  awaitShutdown,
  createAgentLease,
  endAgentLease,
  type IdleReply,
  Lease,
  type LeaseInput,
  type NoActivity,
  postAgentShutdown,
  type ShutdownRequest,
} from '@cde/api/activity.ts';
import {
  type AgentLogLine,
  AgentManifest,
  type AgentStats,
  agentEnvironment,
  checkAgentUsers,
  postAgentLogs,
  postAgentStartup,
  postAgentStats,
  RegisterAgent,
  registerAgent,
  watchAgentUsers,
} from '@cde/api/agent.ts';
import type { z } from 'zod';
import { compileCache } from '../tests/kit/compile-cache.ts';

export const token = 'cde_agent_for_tests';
const leasePath = endAgentLease.path.replace(/:.*$/, '');

export interface TestServer {
  url: string;
  port: number;
  registered: z.infer<typeof RegisterAgent>[];
  /** Lines as the server stores them: once each, in order. */
  lines: AgentLogLine[];
  /** How many lines came, those that came again included. */
  received: number;
  startup: z.infer<NonNullable<typeof postAgentStartup.body>>[];
  stats: (AgentStats & { activity?: AgentActivity | NoActivity | undefined })[];
  /** What the next replies say about idleness. */
  idle: IdleReply | null | undefined;
  /** What long polls for a shutdown are answered at once; they wait while it is null. */
  shutdown: ShutdownRequest | null;
  shutdownAnswers: z.infer<NonNullable<typeof postAgentShutdown.body>>[];
  leases: z.infer<typeof LeaseInput>[];
  endedLeases: string[];
  /** Bodies that broke the contract. */
  faults: string[];
  manifest: AgentManifest;
  /** Answers the next requests to this path with these statuses; -1 takes the request and drops the connection. */
  answer(path: string, ...statuses: number[]): void;
  close(): Promise<void>;
}

export async function makeTestServer(
  changes: Partial<AgentManifest> & { port?: number } = {},
): Promise<TestServer> {
  const planned = new Map<string, number[]>();
  const bodies: Record<string, (body: unknown) => unknown> = {
    [registerAgent.path]: (body) => {
      server.registered.push(RegisterAgent.parse(body));
      return AgentManifest.parse(server.manifest);
    },
    [postAgentLogs.path]: (body) => {
      const { lines } = postAgentLogs.body!.parse(body);
      server.received += lines.length;
      for (const line of lines) {
        if (line.seq > (server.lines.at(-1)?.seq ?? 0)) server.lines.push(line);
      }
      return undefined;
    },
    [postAgentStartup.path]: (body) => {
      server.startup.push(postAgentStartup.body!.parse(body));
      return undefined;
    },
    [postAgentStats.path]: (body) => {
      server.stats.push(postAgentStats.body!.parse(body));
      return postAgentStats.reply!.parse({ satellites: server.manifest.satellites, idle: server.idle });
    },
    [checkAgentUsers.path]: (body) => {
      checkAgentUsers.body!.parse(body);
      return checkAgentUsers.reply!.parse({ endUsers: [] });
    },
    [createAgentLease.path]: (body) => {
      const input = createAgentLease.body!.parse(body);
      server.leases.push(input);
      const at = Date.now();
      return Lease.parse({
        id: `01980000-0000-7000-8000-${String(server.leases.length).padStart(12, '0')}`,
        by: 'workspace',
        reason: input.reason,
        createdAt: new Date(at).toISOString(),
        expiresAt: new Date(at + input.seconds * 1000).toISOString(),
      });
    },
    [awaitShutdown.path]: async () => {
      // Much shorter than the server's, so that tests see changes.
      for (let waited = 0; waited < 20 && !server.shutdown; waited += 1)
        await new Promise((resolve) => setTimeout(resolve, 50));
      return { shutdown: server.shutdown };
    },
    [postAgentShutdown.path]: (body) => {
      server.shutdownAnswers.push(postAgentShutdown.body!.parse(body));
      return undefined;
    },
    [watchAgentUsers.path]: (body) => {
      watchAgentUsers.body!.parse(body);
      return { endUsers: [] };
    },
  };
  const http = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const path = request.url ?? '';
    const reply = (status: number, body?: unknown) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(body === undefined ? undefined : JSON.stringify(body));
    };
    if (request.headers.authorization !== `Bearer ${token}`) {
      return reply(401, { code: 'token-invalid', message: 'The token is not valid.' });
    }
    const status = planned.get(path)?.shift();
    if (status !== undefined && status >= 400) {
      return reply(status, { code: `planned-${status}`, message: `Planned ${status}.` });
    }
    try {
      const lease = path.startsWith(leasePath) ? path.slice(leasePath.length) : '';
      if (request.method === 'DELETE' && lease) {
        server.endedLeases.push(lease);
        return reply(204);
      }
      const body = await bodies[path]!(JSON.parse(Buffer.concat(chunks).toString() || '{}'));
      if (status === -1) return request.socket.destroy();
      return reply(body === undefined ? 204 : 200, body);
    } catch (error) {
      server.faults.push(`${path}: ${error}`);
      return reply(400, { code: 'body-invalid', message: String(error) });
    }
  });
  await new Promise<void>((resolve) => http.listen(changes.port ?? 0, '127.0.0.1', resolve));
  const { port } = http.address() as AddressInfo;
  const server: TestServer = {
    url: `http://127.0.0.1:${port}`,
    port,
    registered: [],
    lines: [],
    received: 0,
    startup: [],
    stats: [],
    idle: undefined,
    shutdown: null,
    shutdownAnswers: [],
    leases: [],
    endedLeases: [],
    faults: [],
    manifest: {
      workspaceId: '01980000-0000-7000-8000-000000000001',
      workspace: 'dev/hello',
      buildId: '01980000-0000-7000-8000-000000000002',
      username: 'dev',
      home: '/',
      env: {},
      startup: null,
      hasShutdownScript: false,
      ticketKeys: [],
      satellites: [],
      paths: ['relay'],
      direct: null,
      listenToken: 'listen',
      listenTokenExpiresAt: new Date(Date.now() + 3600_000).toISOString(),
      statsEveryMs: 30_000,
      ...changes,
    },
    answer(path, ...statuses) {
      planned.set(path, [...(planned.get(path) ?? []), ...statuses]);
    },
    async close() {
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    },
  };
  delete (server.manifest as { port?: number }).port;
  return server;
}

export interface AgentProcess {
  pid: number;
  /** What it has written to stderr. */
  said(): string;
  /** Resolves with its exit code, or the name of the signal. */
  ended: Promise<number | string>;
  kill(signal: NodeJS.Signals): void;
}

/** Starts the agent as providers do. `program` is main.ts, or a bundle. */
export function startAgentProcess(options: {
  url: string;
  home: string;
  program?: string;
  environment?: Record<string, string>;
  stdin?: string;
}): AgentProcess {
  const program = options.program ?? join(dirname(fileURLToPath(import.meta.url)), 'main.ts');
  const child = spawn(process.execPath, [program], {
    cwd: options.home,
    env: {
      PATH: process.env.PATH,
      HOME: options.home,
      // Shared by all tests: compiled once.
      ...compileCache,
      [agentEnvironment.serverUrl]: options.url,
      [agentEnvironment.token]: token,
      ...options.environment,
    },
    stdio: [options.stdin === undefined ? 'ignore' : 'pipe', 'ignore', 'pipe'],
  });
  child.stdin?.end(options.stdin);
  let said = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  return {
    pid: child.pid!,
    said: () => said,
    ended: new Promise((resolve) => child.once('close', (code, signal) => resolve(code ?? signal!))),
    kill: (signal) => child.kill(signal),
  };
}
