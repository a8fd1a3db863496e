import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { Problem } from '@cde/api/problem.ts';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

/** Longer than any path parameter of the API, percent-encoded. */
export const maxParamLength = 500;

/** Fastify options that make errors of Fastify and Node's HTTP parser look like every other API error. */
export const protocolErrorOptions = {
  // `rejectWhileClosing` answers requests that arrive on open connections while the server closes.
  return503OnClosing: false,
  frameworkErrors(error: FastifyError, request: FastifyRequest, reply: FastifyReply) {
    const problem =
      error.code === 'FST_ERR_MAX_PARAM_LENGTH'
        ? new Problem('path-too-long', `A part of the path is longer than ${maxParamLength} characters.`)
        : new Problem('bad-request', 'The path is not valid.', { detail: error.message });
    return reply
      .code(problem.status)
      .type('application/json')
      .serializer(JSON.stringify)
      .send(problem.toBody(request.id) as never);
  },
  clientErrorHandler(error: NodeJS.ErrnoException, socket: Socket) {
    if (error.code === 'ECONNRESET' || socket.destroyed) return;
    if (socket.writable) socket.write(rawReply(toProtocolProblem(error)));
    socket.destroy(error);
  },
};

function toProtocolProblem(error: NodeJS.ErrnoException): Problem {
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return new Problem('request-timeout', 'The request did not arrive in time.');
  if (error.code === 'HPE_HEADER_OVERFLOW')
    return new Problem('headers-too-large', 'The headers of the request, or its path, are too large.', {
      detail: 'At most 16 KiB together.',
    });
  return new Problem('bad-request', 'This is not a valid HTTP request.', { detail: error.message });
}

/** A reply written straight to the socket: when parsing fails there is no request to reply to. */
function rawReply(problem: Problem): string {
  const body = JSON.stringify(problem.toBody(randomUUID()));
  const lines = [
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}`,
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ];
  return `${lines.join('\r\n')}\r\n\r\n${body}`;
}

/** Rejects every request once the server has begun to close. */
export function rejectWhileClosing(app: FastifyInstance): void {
  let closing = false;
  app.addHook('preClose', async () => {
    closing = true;
  });
  app.addHook('onRequest', async (request, reply) => {
    // The process is still alive; only /readyz reports that it accepts no requests.
    if (!closing || request.url === '/healthz') return;
    reply.header('connection', 'close');
    throw new Problem('server-stopping', 'This server is stopping.', {
      detail: 'The request was not processed.',
      hint: 'Try again in a few seconds. Another replica, or this one after its restart, will answer.',
      retryAfter: 1,
    });
  });
}
