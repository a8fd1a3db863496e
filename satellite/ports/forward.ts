import {
  type ClientRequest,
  type IncomingMessage,
  request as makeRequest,
  type OutgoingHttpHeaders,
  ServerResponse,
} from 'node:http';
import { type Duplex, pipeline, type Readable, type Writable } from 'node:stream';
import { Problem } from '@cde/api/problem.ts';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { splice } from '@cde/tunnel/streams/targets.ts';
import { type BodyRate, hasBody, watchBody } from './bodies.ts';
import { replyHeaders, requestHeaders, upgradeHeaders, type Visit } from './headers.ts';
import type { PortStream } from './sessions.ts';

/** A connection to a port and the path to request there. */
interface Upstream extends PortStream {
  path: string;
  visit: Visit;
}

/** Responses with status 1xx per request. They are not forwarded, so an endless series would go unnoticed. */
const maxInformational = 100;
/** How long a visitor's socket may take to close. */
const closeTimeoutMs = 2_000;
/** Bytes buffered from a visitor who sends before the WebSocket is accepted, against the protocol. */
const maxEarlyBytes = 64 * 1024;

/** Each request has its own connection, so that no data of one visitor can end up in another's response. */
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
      forwarded.destroy(new Error(`it sent ${informational} informational responses`));
  });
  return forwarded;
}

/**
 * Works around corruption in Node 24.21: http writes headers as a string together with the start of the body, and through
 * a session's stream (HTTP/2 over TLS over a Duplex) the first 16 bytes sometimes arrived overwritten, as if the copy made
 * of the string were freed before it was sent. Buffers are not copied.
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
 * Forwards a request to the port and its response back, with backpressure. Resolves when the exchange has ended; rejects
 * with a Problem if it fails before a response was sent. `extraHeaders` are added to the response.
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
      reject(unreachable(new Error('it switched protocols without being asked to'), upstream.visit.port));
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
      // The first event of an event stream may take long.
      response.flushHeaders();
      pipe(reply, response, resolve);
    });
    // Without framing, a body would be written raw and parsed as the next request.
    if (!hasBody(request)) return void forwarded.end();
    stopWatching = watchBody(request, forwarded, upstream.bodyRate, (problem) => {
      reject(problem);
      forwarded.destroy();
    });
    // Errors are ignored: a program may respond before it has read the whole body.
    pipe(request, forwarded, () => {});
  });
}

/** Sends the head of the program's response. Returns an error if it is invalid. */
function writeHead(
  reply: IncomingMessage,
  response: ServerResponse,
  headers: OutgoingHttpHeaders,
): Error | null {
  const { statusCode = 0, statusMessage = '' } = reply;
  // 1xx is no final response, and lower ones are invalid.
  if (statusCode < 200) return new Error(`it responded with status ${statusCode}`);
  try {
    // Node parses any byte in the reason phrase but sends only these.
    response.writeHead(statusCode, statusMessage.replace(/[^\t\x20-\x7e\x80-\xff]/g, ' '), headers);
    return null;
  } catch (error) {
    return error as Error;
  }
}

/** Like forwardRequest, for a WebSocket: after the upgrade, bytes are copied unchanged. */
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
    // The end of the connection is only noticed while reading.
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
      // Part of the response was sent already, so no other can follow.
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
      pipe(reply, response, () => {
        closeGracefully(socket);
        // The program keeps the connection open for a WebSocket that was not accepted.
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

/** Ends a connection, and destroys it if the other side does not close it in time. */
export function closeGracefully(socket: Duplex): void {
  socket.end();
  // Unread data would turn our end into a reset.
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), closeTimeoutMs);
  socket.once('close', () => clearTimeout(timer));
}

/** The HTTP error only says that the stream ended; the agent's response says why. */
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
  return new Problem('port-unreachable', `Port ${port} of this workspace did not respond.`, {
    detail:
      code === null
        ? `The program on this port did not send a valid HTTP response: ${error.message}`
        : error.message,
    hint:
      code === 'ticket-invalid'
        ? 'Its agent may be from an older release, which knows no tickets for a single port. Restart the workspace.'
        : 'Try again. If it keeps failing, check the workspace and the log of the program.',
  });
}

/** Like `pipeline`, which throws if a stream has been closed already: that happens when a visitor leaves at the wrong moment. */
function pipe(from: Readable, to: Writable, done: () => void): void {
  if (from.destroyed || to.destroyed || to.writableEnded) {
    from.destroy();
    to.destroy();
    done();
  } else {
    pipeline(from, to, () => done());
  }
}

/** For errors while opening the session, before there is a stream. */
export const toUnreachable = (error: unknown, port: number): Problem => unreachable(error as Error, port);
