import { type ClientRequest, type IncomingMessage, request as makeRequest, ServerResponse } from 'node:http';
import { type Duplex, pipeline } from 'node:stream';
import { Problem } from '@cde/api/problem.ts';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { join } from '@cde/tunnel/targets.ts';
import { replyHeaders, requestHeaders, upgradeHeaders, type Visit } from './headers.ts';
import type { PortStream } from './sessions.ts';

/** A request on its way to a workspace: `stream` leads to the port, `path` is what is asked for there. */
interface Passage extends PortStream {
  path: string;
  visit: Visit;
}

/**
 * One connection for one request: nothing is left on it that could become part of another visitor's. Node's
 * client speaks HTTP over the stream as over a socket.
 */
function ask(
  { stream, path }: Passage,
  method: string,
  headers: Record<string, string | string[]>,
): ClientRequest {
  stream.on('error', () => {});
  onlyBuffers(stream);
  return makeRequest({ createConnection: () => stream, method, path, headers, setHost: false });
}

/**
 * Node's HTTP writes its headers as a string, together with the first of the body. Through a session's stream (HTTP/2
 * over TLS over a Duplex, Node 24.21) some hundred bytes of these arrived with their first 16 overwritten, as if the copy
 * that is made of a string were freed before it is sent. Of Buffers no copy is made.
 */
function onlyBuffers(stream: Duplex): void {
  const write = stream.write.bind(stream) as (chunk: unknown, ...more: unknown[]) => boolean;
  stream.write = (chunk: unknown, ...more: unknown[]) => {
    if (typeof chunk !== 'string') return write(chunk, ...more);
    const [encoding, ...rest] = typeof more[0] === 'string' ? more : [undefined, ...more];
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
  passage: Passage & { more?: Record<string, string> },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const there = ask(passage, request.method ?? 'GET', requestHeaders(request, passage.visit));
    // Whoever has gone away needs no reply.
    response.once('close', () => {
      there.destroy();
      resolve();
    });
    there.once('error', (error) => {
      if (!response.headersSent) return void why(error, passage).then(reject);
      response.destroy();
      resolve();
    });
    there.once('response', (reply) => {
      try {
        const headers = replyHeaders(reply, passage.visit);
        const vary = [reply.headers.vary, passage.more?.vary].filter((text) => text !== undefined);
        response.writeHead(reply.statusCode ?? 502, reply.statusMessage, {
          ...headers,
          ...passage.more,
          ...(vary.length > 0 && { vary: vary.join(', ') }),
        });
      } catch (error) {
        // A header of the program's that nobody may send.
        there.destroy();
        return reject(unreachable(error as Error, passage.visit.port));
      }
      // Events begin with their headers, and the first may be long in coming.
      response.flushHeaders();
      pipeline(reply, response, () => resolve());
    });
    // A reply may come before all of the body was wanted: that is no fault of the request's.
    pipeline(request, there, () => {});
  });
}

/** As forwardRequest, for a WebSocket: once it is accepted, bytes pass as they are. */
export function forwardUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  passage: Passage,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const there = ask(passage, 'GET', upgradeHeaders(request, passage.visit));
    const gone = () => {
      there.destroy();
      resolve();
    };
    socket.once('close', gone);
    there.once('error', (error) => {
      socket.off('close', gone);
      void why(error, passage).then(reject);
    });
    there.once('response', (reply) => {
      const response = new ServerResponse(request);
      response.assignSocket(socket as never);
      response.shouldKeepAlive = false;
      response.writeHead(reply.statusCode ?? 502, reply.statusMessage, replyHeaders(reply, passage.visit));
      pipeline(reply, response, () => {
        socket.end();
        resolve();
      });
    });
    there.once('upgrade', (reply, behind, early) => {
      socket.off('close', gone);
      const lines = Object.entries(replyHeaders(reply, passage.visit)).flatMap(([name, value]) =>
        [value].flat().map((one) => `${name}: ${one}`),
      );
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n${lines.join('\r\n')}\r\n\r\n`,
      );
      if (head.length > 0) socket.unshift(head);
      if (early.length > 0) behind.unshift(early);
      void join(socket, behind).then(resolve);
    });
    there.end();
  });
}

/** HTTP knows only that its stream has ended; the agent has said why. */
const why = ({ message }: Error, { opened, visit }: Passage): Promise<Problem> =>
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
      hint: 'Start the program there, on the loopback address or on all. What listens: cde ports WORKSPACE',
    });
  return new Problem('port-unreachable', `Port ${port} of this workspace gave no answer.`, {
    detail:
      code === null ? `What listens there does not speak HTTP as it should: ${error.message}` : error.message,
    hint:
      code === 'ticket-invalid'
        ? 'Its agent may be of an older release, which knows no tickets for one port: cde restart WORKSPACE.'
        : 'Try again; if it stays: cde show, and the log of the program.',
  });
}

/** Errors of opening the session, before there is a stream. */
export const toUnreachable = (error: unknown, port: number): Problem => unreachable(error as Error, port);
