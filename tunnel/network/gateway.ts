import type { AgentOptions, Agent as HttpAgent } from 'node:http';
import type { Agent as HttpsAgent } from 'node:https';
import { connect as connectSocket, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { ConnectionOptions } from 'node:tls';
import { proxyAgent } from './proxy.ts';

// Not by `import`: see api/send-request.ts.
const { readdirSync } = process.getBuiltinModule('node:fs');

/**
 * Connects agents in workspaces with their own network namespace to a server that listens on the machine's loopback
 * address. The server keeps a Unix socket in a directory that the workspace can see. An HTTP CONNECT on it reaches the
 * server itself and any replicas and satellites on the same machine; for other addresses it answers `notHere`, and
 * the agent connects directly. It is a directory because each server, and each restart, creates its own socket.
 */
export const gatewayStatus = { open: 200, notHere: 421, failed: 502 } as const;

/** Stands for the server behind a gateway, whose port may change when it restarts. */
const gatewayServerName = 'server.cde.internal';
export const gatewayServerUrl = `http://${gatewayServerName}`;
export const gatewayServerHost = `${gatewayServerName}:80`;

const responseTimeoutMs = 10_000;
/** How long to wait before trying the next gateway as well; a server answers within a few milliseconds. */
const nextAttemptMs = 250;
const maxAnswerBytes = 4096;

let gatewayDirectory: string | undefined;

/** From now on every request and WebSocket of this process tries the gateways in this directory first. */
export function useGateway(path: string | undefined): void {
  gatewayDirectory = path;
}

type Created = (error: Error | null, socket: Duplex) => void;

/** Makes `agent` connect through a gateway if one can reach the address. Without a gateway it is left as it is. */
export function withGateway<A extends HttpAgent | HttpsAgent>(agent: A, secure: boolean): A {
  const directory = gatewayDirectory;
  if (directory === undefined) return agent;
  const own = agent as unknown as { createConnection(options: AgentOptions, created: Created): Duplex };
  const direct = own.createConnection.bind(agent);
  own.createConnection = (options, created) => {
    const { host = 'localhost', port } = options as { host?: string; port?: number | string };
    connectByGateway(directory, host, Number(port)).then(
      (socket) => {
        if (!socket) return handOver(direct(options, created), created);
        if (!secure) return created(null, socket);
        const { connect } = process.getBuiltinModule('node:tls');
        handOver(connect({ ...(options as ConnectionOptions), socket }), created);
      },
      (error: Error) => created(error, undefined as never),
    );
    return undefined as never;
  };
  return agent;
}

/** The agent for a WebSocket; undefined if it needs neither a gateway nor a proxy. */
export function dialAgent(secure: boolean): HttpAgent | HttpsAgent | undefined {
  const proxy = secure ? proxyAgent() : undefined;
  if (gatewayDirectory === undefined) return proxy;
  if (!secure) return withGateway(new (process.getBuiltinModule('node:http').Agent)(), false);
  return withGateway(proxy ?? new (process.getBuiltinModule('node:https').Agent)(), true);
}

/** Direct connections are returned immediately; those through a proxy arrive in the callback. */
function handOver(socket: Duplex | undefined, created: Created): void {
  if (socket) created(null, socket);
}

/**
 * Resolves to null if no gateway reaches the address, and rejects if one does but the other end does not answer. If a
 * gateway is silent for a moment the next is tried as well, so that a hung server does not block agents.
 */
async function connectByGateway(directory: string, host: string, port: number): Promise<Socket | null> {
  const answers = await tryAll(socketsIn(directory), host, port);
  if (answers.open) return answers.open;
  if (answers.failed) throw new Error(`${host}:${port} does not answer the server's gateway`);
  // Nothing else can reach these hosts, so fail now instead of after seconds of name resolution.
  if (!answers.notHere && isOnlyBehind(host)) throw new Error(`no server answers for ${host}:${port}`);
  return null;
}

/** The paths of the gateways' sockets. */
function socketsIn(directory: string): string[] {
  try {
    const names = readdirSync(directory).filter((name) => name.endsWith('.sock'));
    return names.map((name) => join(directory, name));
  } catch {
    // No server has created the directory yet.
    return [];
  }
}

interface Answers {
  open?: Socket;
  failed: boolean;
  notHere: boolean;
}

/** Resolves with the first gateway that reaches the address, or else with the answers of all that respond in time. */
function tryAll(paths: readonly string[], host: string, port: number): Promise<Answers> {
  return new Promise((resolve) => {
    const answers: Answers = { failed: false, notHere: false };
    let decided = false;
    let next = 0;
    let pending = 0;
    let timer: NodeJS.Timeout | undefined;
    const decide = () => {
      decided = true;
      clearTimeout(timer);
      resolve(answers);
    };
    const advance = (): void => {
      clearTimeout(timer);
      if (decided) return;
      if (next < paths.length) {
        const path = paths[next++]!;
        pending++;
        connectThrough(path, host, port).then(onAnswer, onFailure);
        timer = setTimeout(advance, nextAttemptMs);
      } else if (pending === 0) decide();
      // All have been tried. The answers so far count for the silent ones, too.
      else timer = setTimeout(() => (answers.failed || answers.notHere) && decide(), nextAttemptMs);
    };
    const onAnswer = ({ status, socket }: { status: number; socket: Socket }): void => {
      pending--;
      if (status === gatewayStatus.open && !decided) {
        answers.open = socket;
        decide();
        return;
      }
      socket.destroy();
      if (status === gatewayStatus.notHere) answers.notHere = true;
      else if (status !== gatewayStatus.open) answers.failed = true;
      advance();
    };
    // A dead server left its socket behind, or the server hangs.
    const onFailure = (): void => {
      pending--;
      advance();
    };
    advance();
  });
}

const isOnlyBehind = (host: string) =>
  host === 'localhost' || host === '::1' || host.startsWith('127.') || host === gatewayServerName;

function connectThrough(
  path: string,
  host: string,
  port: number,
): Promise<{ status: number; socket: Socket }> {
  return new Promise((resolve, reject) => {
    const authority = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    const socket = connectSocket({ path });
    const timer = setTimeout(
      () => socket.destroy(new Error('the gateway does not answer')),
      responseTimeoutMs,
    );
    let head = Buffer.alloc(0);
    const closed = () => reject(new Error('the gateway closed the connection'));
    const read = (chunk: Buffer) => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf('\r\n\r\n');
      if (end < 0) return head.length > maxAnswerBytes && socket.destroy(new Error('no gateway'));
      clearTimeout(timer);
      socket.off('data', read).off('error', reject).off('close', closed);
      // Not paused, because HTTP and TLS would not resume it. Nothing gets lost: in both the client speaks first.
      const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head.toString('latin1', 0, 16))?.[1]);
      return resolve({ status, socket });
    };
    socket.on('data', read);
    socket.once('error', reject).once('close', closed);
    socket.once('connect', () => {
      socket.write(`CONNECT ${authority} HTTP/1.1\r\nhost: ${authority}\r\n\r\n`);
    });
  });
}
