import {
  type ClientRequest,
  type IncomingMessage,
  request as makeRequest,
  type OutgoingHttpHeaders,
  ServerResponse,
} from 'node:http';
import { type Duplex, pipeline } from 'node:stream';
import { Problem } from '@cde/api/problem.ts';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { splice } from '@cde/tunnel/streams/targets.ts';
import { type BodyRate, hasBody, watchBody } from './bodies.ts';
import { replyHeaders, requestHeaders, upgradeHeaders, type Visit } from './headers.ts';
import type { PortStream } from './sessions.ts';

/** A request on its way to a workspace: `stream` leads to the port, `path` is what is asked for there. */
interface Upstream extends PortStream {
  path: string;
  visit: Visit;
}

/** Replies of status 1xx, which reach nobody: a program that sends them for ever would keep us busy, and no visitor. */
const maxInformational = 100;
/** How long a visitor's end may take to close. */
const closeTimeoutMs = 2_000;
/** Bytes kept of a visitor who writes before the WebSocket is accepted, which none may. */
const maxEarlyBytes = 64 * 1024;

/**
 * One connection for one request: nothing is left on it that could become part of another visitor's. Node's
 * client speaks HTTP over the stream as over a socket.
 */
function makeUpstreamRequest(
  { stream, path }: Upstream,
  method: string,
  headers: Record<string, string | string[]>,
): ClientRequest {
  stream.on('error', () => {});
  writeBuffersOnly(stream);
  const forwarded = makeRequest({ createConnection: () => stream, method, path, headers, setHost: false });
  let informational = 0;
  forwarded.on('information', () => {
    informational += 1;
    if (informational > maxInformational)
      forwarded.destroy(new Error(`it has said ${informational} times that it works on it`));
  });
  return forwarded;
}

/**
 * Node's HTTP writes its headers as a string, together with the first of the body. Through a session's stream (HTTP/2
 * over TLS over a Duplex, Node 24.21) some hundred bytes of these arrived with their first 16 overwritten, as if the copy
 * that is made of a string were freed before it is sent. Of Buffers no copy is made.
 */
function writeBuffersOnly(stream: Duplex): void {
  const write = stream.write.bind(stream) as (chunk: unknown, ...extraHeaders: unknown[]) => boolean;
  stream.write = (chunk: unknown, ...extraHeaders: unknown[]) => {
    if (typeof chunk !== 'string') return write(chunk, ...extraHeaders);
    const [encoding, ...rest] =
      typeof extraHeaders[0] === 'string' ? extraHeaders : [undefined, ...extraHeaders];
    return write(Buffer.from(chunk, encoding as BufferEncoding | undefined), ...rest);
  };
}

/**
 * Carries a request to the port and its reply back, as fast as the slower side takes it. Resolves when it is
 * over; rejects with a Problem while nothing of a reply was sent. `more`: headers for the reply.
 */
export function forwardRequest(
  request: IncomingMessage,
  response: ServerResponse,
  upstream: Upstream & { extraHeaders?: Record<string, string>; bodyRate: BodyRate },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const forwarded = makeUpstreamRequest(
      upstream,
      request.method ?? 'GET',
      requestHeaders(request, upstream.visit),
    );
    let stopWatching = () => {};
    // Whoever has gone away needs no reply.
    response.once('close', () => {
      stopWatching();
      forwarded.destroy();
      resolve();
    });
    forwarded.once('error', (error) => {
      stopWatching();
      if (!response.headersSent) return void explainFailure(error, upstream).then(reject);
      response.destroy();
      resolve();
    });
    forwarded.once('upgrade', (_reply, upstreamSocket) => {
      upstreamSocket.destroy();
      reject(unreachable(new Error('it switches protocols, and was not asked to'), upstream.visit.port));
    });
    forwarded.once('response', (reply) => {
      stopWatching();
      const vary = [reply.headers.vary, upstream.extraHeaders?.vary].filter((text) => text !== undefined);
      const refused = writeHead(reply, response, {
        ...replyHeaders(reply, upstream.visit, request.headers.origin),
        ...upstream.extraHeaders,
        ...(vary.length > 0 && { vary: vary.join(', ') }),
      });
      if (refused) {
        forwarded.destroy();
        return reject(unreachable(refused, upstream.visit.port));
      }
      // Events begin with their headers, and the first may be long in coming.
      response.flushHeaders();
      pipeline(reply, response, () => resolve());
    });
    // Without a length a body would be written as it is, and be read as the next request.
    if (!hasBody(request)) return void forwarded.end();
    stopWatching = watchBody(request, forwarded, upstream.bodyRate, (problem) => {
      reject(problem);
      forwarded.destroy();
    });
    // A reply may come before all of the body was wanted: that is no fault of the request's.
    pipeline(request, forwarded, () => {});
  });
}

/** Sends the head of the program's reply on; returns what is wrong with one that nobody may send. */
function writeHead(
  reply: IncomingMessage,
  response: ServerResponse,
  headers: OutgoingHttpHeaders,
): Error | null {
  const { statusCode = 0, statusMessage = '' } = reply;
  // Of those below, the ones that HTTP knows are no reply, or not to this.
  if (statusCode < 200) return new Error(`it answers with status ${statusCode}`);
  try {
    // Node reads any byte in there, and writes but these.
    response.writeHead(statusCode, statusMessage.replace(/[^\t\x20-\x7e\x80-\xff]/g, ' '), headers);
    return null;
  } catch (error) {
    return error as Error;
  }
}

/** As forwardRequest, for a WebSocket: once it is accepted, bytes pass as they are. */
export function forwardUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  upstream: Upstream,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const forwarded = makeUpstreamRequest(upstream, 'GET', upgradeHeaders(request, upstream.visit));
    const gone = () => {
      forwarded.destroy();
      resolve();
    };
    // Only who reads learns that the visitor has left.
    const early = [head];
    let earlyBytes = head.length;
    const bufferEarly = (data: Buffer) => {
      early.push(data);
      earlyBytes += data.length;
      if (earlyBytes > maxEarlyBytes) socket.destroy();
    };
    const leave = () => void socket.destroy();
    socket.once('close', gone);
    socket.once('end', leave);
    socket.on('data', bufferEarly);
    forwarded.once('error', (error) => {
      // Half a reply is no place for another: it ends with the program's.
      if (answered) return;
      socket.off('close', gone);
      socket.off('data', bufferEarly);
      void explainFailure(error, upstream).then(reject);
    });
    let answered = false;
    forwarded.once('response', (reply) => {
      socket.off('data', bufferEarly);
      socket.resume();
      const response = new ServerResponse(request);
      response.shouldKeepAlive = false;
      const refused = writeHead(reply, response, replyHeaders(reply, upstream.visit, request.headers.origin));
      if (refused) {
        socket.off('close', gone);
        forwarded.destroy();
        return reject(unreachable(refused, upstream.visit.port));
      }
      answered = true;
      response.assignSocket(socket as never);
      pipeline(reply, response, () => {
        closeGracefully(socket);
        // The program was asked to keep the connection, for the WebSocket that does not come.
        upstream.stream.destroy();
        resolve();
      });
    });
    forwarded.once('upgrade', (reply, upstreamSocket, first) => {
      socket.off('close', gone);
      socket.off('end', leave);
      socket.off('data', bufferEarly);
      socket.pause();
      const lines = Object.entries(replyHeaders(reply, upstream.visit, request.headers.origin)).flatMap(
        ([name, value]) => [value].flat().map((one) => `${name}: ${one}\r\n`),
      );
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n${lines.join('')}\r\n`,
        'latin1',
      );
      if (earlyBytes > 0) socket.unshift(Buffer.concat(early));
      if (first.length > 0) upstreamSocket.unshift(first);
      void splice(socket, upstreamSocket).then(resolve);
    });
    forwarded.end();
  });
}

/** Ends a connection on which all was said; one whose other end never closes is not kept for that. */
export function closeGracefully(socket: Duplex): void {
  socket.end();
  // Or what it still sends would make its end look like ours.
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), closeTimeoutMs);
  socket.once('close', () => clearTimeout(timer));
}

/** HTTP knows only that its stream has ended; the agent has said why. */
const explainFailure = ({ message }: Error, { opened, visit }: Upstream): Promise<Problem> =>
  opened.then(
    () => unreachable(new Error(message), visit.port),
    (reason) => unreachable(reason, visit.port),
  );

function unreachable(error: Error, port: number): Problem {
  if (error instanceof Problem) return error;
  const code = error instanceof TunnelError ? error.code : null;
  if (code === 'target-refused')
    return new Problem('port-unreachable', `Nothing listens on port ${port} of this workspace.`, {
      detail: error.message,
      hint: 'Start the program in the workspace. It may listen on the loopback address or on all.',
    });
  return new Problem('port-unreachable', `Port ${port} of this workspace gave no answer.`, {
    detail:
      code === null ? `What listens there does not speak HTTP as it should: ${error.message}` : error.message,
    hint:
      code === 'ticket-invalid'
        ? 'Its agent may be from an older release, which knows no tickets for a single port. Restart the workspace.'
        : 'Try again. If it keeps failing, check the workspace and the log of the program.',
  });
}

/** Errors of opening the session, before there is a stream. */
export const toUnreachable = (error: unknown, port: number): Problem => unreachable(error as Error, port);
