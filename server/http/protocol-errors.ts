import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { Problem } from '@cde/api/problem.ts';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

/** Longer than any parameter of the contract, in percent-encoding. */
export const maxParamLength = 500;

/** Refusals that Fastify and Node would make in forms of their own: options for Fastify, in the form of all others. */
export const protocolErrorOptions = {
  // Requests of a connection that is open still arrive while the server closes. `refuseWhileClosing` answers them.
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
  return new Problem('bad-request', 'This is not a request of HTTP.', { detail: error.message });
}

/** What there is no request for: the parser gave up. */
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

/** From the moment that the server begins to close, requests are refused before anything is done. */
export function rejectWhileClosing(app: FastifyInstance): void {
  let closing = false;
  app.addHook('preClose', async () => {
    closing = true;
  });
  app.addHook('onRequest', async (request, reply) => {
    // It lives still; /readyz says that it takes no more.
    if (!closing || request.url === '/healthz') return;
    reply.header('connection', 'close');
    throw new Problem('server-stopping', 'This server is stopping.', {
      detail: 'Nothing was done.',
      hint: 'Try again in a few seconds: another replica, or the next start, answers.',
      retryAfter: 1,
    });
  });
}
