import type { AgentOptions, Agent as HttpAgent } from 'node:http';
import type { Agent as HttpsAgent } from 'node:https';
import { connect as connectSocket, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { ConnectionOptions } from 'node:tls';
import { proxyAgent } from './proxy.ts';

// Not by `import`: see agent/fetch.ts.
const { readdirSync } = process.getBuiltinModule('node:fs');

/**
 * The way out of a workspace whose network is its own and whose server listens on the machine's loopback
 * address. The server keeps a Unix socket in a folder that the workspace sees; an HTTP CONNECT on it leads to the
 * server itself, and to those of its replicas and satellites that are on the same machine. For any other address it
 * answers `notHere`, and the agent connects by itself. A folder, because a server that restarts, and each of several
 * servers, has a socket of its own there.
 */
export const gatewayStatus = { open: 200, notHere: 421, failed: 502 } as const;

/** Names the server at a gateway, whatever its port is after a restart. */
const gatewayServerName = 'server.cde.internal';
export const gatewayServerUrl = `http://${gatewayServerName}`;
export const gatewayServerHost = `${gatewayServerName}:80`;

const responseTimeoutMs = 10_000;
/** Between two attempts; a server answers within a few milliseconds. */
const nextAfterMs = 250;
const maxAnswerBytes = 4096;

let folder: string | undefined;

/** Every later request and WebSocket of this process tries the gateways in this folder first. */
export function useGateway(path: string | undefined): void {
  folder = path;
}

type Created = (error: Error | null, socket: Duplex) => void;

/** Makes `agent` connect by way of a gateway where one leads to the address; without a gateway it is as before. */
export function withGateway<A extends HttpAgent | HttpsAgent>(agent: A, secure: boolean): A {
  const around = folder;
  if (around === undefined) return agent;
  const own = agent as unknown as { createConnection(options: AgentOptions, created: Created): Duplex };
  const direct = own.createConnection.bind(agent);
  own.createConnection = (options, created) => {
    const { host = 'localhost', port } = options as { host?: string; port?: number | string };
    connectByGateway(around, host, Number(port)).then(
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

/** For one WebSocket; undefined where it connects as any other. */
export function dialAgent(secure: boolean): HttpAgent | HttpsAgent | undefined {
  const proxy = secure ? proxyAgent() : undefined;
  if (folder === undefined) return proxy;
  if (!secure) return withGateway(new (process.getBuiltinModule('node:http').Agent)(), false);
  return withGateway(proxy ?? new (process.getBuiltinModule('node:https').Agent)(), true);
}

/** Connections that are made at once are returned, those of a proxy come by the callback. */
function handOver(socket: Duplex | undefined, created: Created): void {
  if (socket) created(null, socket);
}

/**
 * Null: no gateway leads there. Rejects where one does and the other end does not answer. Gateways are tried one after the
 * other, the next as soon as one has not answered for a moment: a server that hangs holds no agent up.
 */
async function connectByGateway(around: string, host: string, port: number): Promise<Socket | null> {
  const answers = await askAll(socketsIn(around), host, port);
  if (answers.open) return answers.open;
  if (answers.failed) throw new Error(`${host}:${port} does not answer the server's gateway`);
  // Nothing else answers there: not even a name that is asked for in vain, for seconds.
  if (!answers.notHere && isOnlyBehind(host)) throw new Error(`no server answers for ${host}:${port}`);
  return null;
}

/** The paths of the gateways' sockets. */
function socketsIn(around: string): string[] {
  try {
    const names = readdirSync(around).filter((name) => name.endsWith('.sock'));
    return names.map((name) => join(around, name));
  } catch {
    // No server has one yet.
    return [];
  }
}

interface Answers {
  open?: Socket;
  failed: boolean;
  notHere: boolean;
}

/** What the first gateway that leads there, or else all that answer in time, say. */
function askAll(paths: readonly string[], host: string, port: number): Promise<Answers> {
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
        ask(path, host, port).then(onAnswer, onSilence);
        timer = setTimeout(advance, nextAfterMs);
      } else if (pending === 0) decide();
      // All are asked. Those that have answered know what the silent ones know.
      else timer = setTimeout(() => (answers.failed || answers.notHere) && decide(), nextAfterMs);
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
    // That server is gone and its socket is left, or it hangs.
    const onSilence = (): void => {
      pending--;
      advance();
    };
    advance();
  });
}

const isOnlyBehind = (host: string) =>
  host === 'localhost' || host === '::1' || host.startsWith('127.') || host === gatewayServerName;

function ask(path: string, host: string, port: number): Promise<{ status: number; socket: Socket }> {
  return new Promise((resolve, reject) => {
    const place = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
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
      // Not paused: HTTP and TLS would not resume it. Nothing can get lost, since the client speaks first in both.
      const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head.toString('latin1', 0, 16))?.[1]);
      return resolve({ status, socket });
    };
    socket.on('data', read);
    socket.once('error', reject).once('close', closed);
    socket.once('connect', () => {
      socket.write(`CONNECT ${place} HTTP/1.1\r\nhost: ${place}\r\n\r\n`);
    });
  });
}
