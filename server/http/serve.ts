import { createHash } from 'node:crypto';
import type { Endpoint } from '@cde/api/endpoint.ts';
import { ApiError } from '@cde/api/errors.ts';
import { maxIssues, Problem } from '@cde/api/problem.ts';
import { systemErrorReason, systemErrorText } from '@cde/api/system-errors.ts';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { isDatabaseFull, isUnavailable, isUnstorable } from '../database/pool.ts';
import type { Actor, Auth, Caller } from './actor.ts';
import { makeRequestLimiter } from './request-limiter.ts';

declare module 'fastify' {
  interface FastifyInstance {
    readonly auth: Auth;
    requestLimiter: ReturnType<typeof makeRequestLimiter>;
    /** Every registered endpoint, for tests that iterate over them. */
    endpoints: Endpoint[];
    /** Whether replies are validated against their schemas (tests and development). */
    checkReplies: boolean;
  }
  interface FastifyRequest {
    actor: Actor;
  }
}

const noContent = z.null().describe('Done; no content');

type Parsed<T> = T extends z.ZodType ? z.output<T> : undefined;

export interface Input<
  Params extends z.ZodType,
  Query extends z.ZodType,
  Body extends z.ZodType,
  A extends Actor = Actor,
> extends Caller<A> {
  params: Parsed<Params>;
  query: Parsed<Query>;
  body: Parsed<Body>;
  request: FastifyRequest;
  reply: FastifyReply;
}

/** The actors that can have a permission: `agent` and `satellite` are their own kind, `public` is anyone, the rest users. */
type ActorOf<P> = P extends 'agent' | 'satellite'
  ? Extract<Actor, { kind: P }>
  : P extends 'public'
    ? Actor
    : Extract<Actor, { kind: 'user' }>;

/**
 * Registers one endpoint of the API: authenticates, checks its permission, parses, honours Idempotency-Key, calls
 * `handler` and replies. If the resource has an owner, the handler authorizes against that owner as well.
 */
export function serve<
  Params extends z.ZodType,
  Query extends z.ZodType,
  Body extends z.ZodType,
  Reply extends z.ZodType,
>(
  app: FastifyInstance,
  endpoint: Endpoint<Params, Query, Body, Reply>,
  handler: (input: Input<Params, Query, Body, Extract<Actor, { kind: 'user' }>>) => Promise<z.input<Reply>>,
): void {
  serveAs<Params, Query, Body, Reply, 'signed-in'>(app, endpoint, handler);
}

/** Like `serve`, for permissions of actors other than users: pass the permission as the last type argument. */
export function serveAs<
  Params extends z.ZodType,
  Query extends z.ZodType,
  Body extends z.ZodType,
  Reply extends z.ZodType,
  P extends 'agent' | 'satellite' | 'public' | 'signed-in',
>(
  app: FastifyInstance,
  endpoint: Endpoint<Params, Query, Body, Reply>,
  handler: (input: Input<Params, Query, Body, ActorOf<P>>) => Promise<z.input<Reply>>,
): void {
  app.endpoints.push(endpoint as unknown as Endpoint);
  app.route({
    method: endpoint.method,
    url: endpoint.path,
    schema: {
      summary: endpoint.summary,
      tags: [endpoint.tag],
      description: `Permission: \`${endpoint.permission}\``,
      ...(endpoint.params && { params: endpoint.params }),
      ...(endpoint.query && { querystring: endpoint.query }),
      ...(endpoint.body && { body: endpoint.body }),
      ...(endpoint.permission === 'public' && { security: [] }),
      response: {
        [endpoint.status ?? (endpoint.reply ? 200 : 204)]: endpoint.reply ?? noContent,
        '4xx': ApiError,
        '5xx': ApiError,
      },
    },
    onRequest: async (request, reply) => {
      request.actor = await app.auth.authenticate(request.headers, {
        method: request.method,
        ip: request.ip,
      });
      app.auth.authorize(request.actor, endpoint.permission);
      app.requestLimiter.add(request.actor, endpoint, reply);
    },
    handler: async (request, reply) => {
      const actor = request.actor as ActorOf<P>;
      const call = () =>
        handler({
          actor,
          requestId: request.id,
          ip: request.ip,
          params: request.params as Parsed<Params>,
          query: request.query as Parsed<Query>,
          body: request.body as Parsed<Body>,
          request,
          reply,
        });
      const status = endpoint.status ?? (endpoint.reply ? 200 : 204);
      const key = request.headers['idempotency-key'];
      if (endpoint.idempotent && typeof key === 'string' && actor.kind === 'user') {
        if (key.length > 200)
          throw new Problem('bad-request', 'The Idempotency-Key is longer than 200 characters.');
        const fingerprint = createHash('sha256')
          .update(`${request.method} ${request.url}\n${JSON.stringify(request.body ?? null)}`)
          .digest('hex');
        const done = await app.auth.runIdempotent(actor, key, fingerprint, async () => ({
          status,
          body: await call(),
        }));
        if (done.replayed) reply.header('idempotent-replayed', 'true');
        return reply.code(done.status).send(done.body ?? null);
      }
      const body = await call();
      if (reply.sent) return reply;
      if (!endpoint.reply) return reply.code(204).send();
      return reply.code(status).send(body);
    },
  });
}

/** Like `serve`, for endpoints of workspace agents. */
export function serveAgent<
  Params extends z.ZodType,
  Query extends z.ZodType,
  Body extends z.ZodType,
  Reply extends z.ZodType,
>(
  app: FastifyInstance,
  endpoint: Endpoint<Params, Query, Body, Reply>,
  handler: (input: Input<Params, Query, Body, Extract<Actor, { kind: 'agent' }>>) => Promise<z.input<Reply>>,
): void {
  serveAs<Params, Query, Body, Reply, 'agent'>(app, endpoint, handler);
}

/** Like `serve`, for endpoints of satellites. */
export function serveSatellite<
  Params extends z.ZodType,
  Query extends z.ZodType,
  Body extends z.ZodType,
  Reply extends z.ZodType,
>(
  app: FastifyInstance,
  endpoint: Endpoint<Params, Query, Body, Reply>,
  handler: (
    input: Input<Params, Query, Body, Extract<Actor, { kind: 'satellite' }>>,
  ) => Promise<z.input<Reply>>,
): void {
  serveAs<Params, Query, Body, Reply, 'satellite'>(app, endpoint, handler);
}

/** The bytes of a request's body. */
export const bodyLimit = 2 * 1024 * 1024;

const fastifyCodes: Record<string, 'unsupported-media-type' | 'bad-request'> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported-media-type',
};

/** The message of the innermost cause. Outer errors can contain an SQL statement and its values. */
function rootMessage(error: unknown): string {
  let root = error as Error;
  while (root.cause instanceof Error) root = root.cause;
  return root.message;
}

/** Converts anything thrown into a Problem. Errors that the caller did not cause become `internal`. */
export function toProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (isDatabaseFull(error))
    return new Problem('database-unavailable', "The disk of the server's database is full.", {
      detail: rootMessage(error),
      hint: 'No data was lost. Ask an administrator to free disk space, then try again.',
      retryAfter: 5,
      cause: error,
    });
  if (isUnavailable(error))
    return new Problem('database-unavailable', 'The server cannot reach its database.', {
      hint: 'No data was lost. Try again in a few seconds.',
      retryAfter: 2,
      cause: error,
    });
  const known = error as {
    code?: string;
    statusCode?: number;
    message?: string;
    issues?: { path: PropertyKey[]; message: string }[];
    where?: string;
  };
  if (Array.isArray(known.issues) && known.where) {
    const issues = known.issues
      .slice(0, maxIssues)
      .map((issue) => ({ path: issue.path.join('.'), message: issue.message }));
    return new Problem('bad-request', `The request's ${known.where} is not valid.`, {
      detail: issues.map((issue) => `${issue.path || '(all)'}: ${issue.message}`).join('; '),
      issues,
    });
  }
  if (isUnstorable(error))
    return new Problem('bad-request', 'The request contains a character that cannot be stored.', {
      detail: 'Text cannot contain NUL or a lone surrogate.',
      cause: error,
    });
  if (known.code === 'FST_ERR_CTP_BODY_TOO_LARGE')
    return new Problem('payload-too-large', `The request is larger than ${bodyLimit / 1024 / 1024} MiB.`, {
      hint: 'Send less, such as a shorter file.',
    });
  if (known.statusCode && known.statusCode < 500)
    return new Problem(
      fastifyCodes[known.code ?? ''] ?? 'bad-request',
      known.message ?? 'The request is not valid.',
    );
  // Only errors with a known text: others can contain addresses of the server's network.
  const refused = systemErrorText((error as { code?: unknown })?.code) && systemErrorReason(error);
  if (refused)
    // Without the path on the server, which does not help the caller; the log has it.
    return new Problem('internal', `The server's operating system reported an error: ${refused}.`, {
      hint: 'Give your administrator this message and the request id.',
      cause: error,
    });
  return new Problem('internal', 'Something went wrong on the server.', {
    hint: 'Try again. If the problem persists, give your administrator the request id.',
    cause: error,
  });
}

/** Installs request validation by zod, the reply serializer and the error handler. */
export function installHttp(app: FastifyInstance, options: { checkReplies: boolean }): void {
  app.decorate('requestLimiter', makeRequestLimiter());
  app.decorate('endpoints', []);
  app.decorate('checkReplies', options.checkReplies);
  // Set by every endpoint's onRequest; null only on routes outside the contract, which do not read it.
  app.decorateRequest<Actor | null>('actor', null);

  app.setValidatorCompiler(({ schema, httpPart }) => (data) => {
    // Fastify passes null when there is no body; zod's optional() accepts only undefined.
    const parsed = (schema as z.ZodType).safeParse(data ?? undefined);
    if (parsed.success) return { value: parsed.data };
    return {
      error: Object.assign(new Error('invalid'), {
        issues: parsed.error.issues,
        where: httpPart === 'querystring' ? 'query' : httpPart,
      }),
    };
  });
  // Validating replies halves the throughput of lists, so only tests do it; there an invalid reply fails.
  app.setSerializerCompiler(({ schema }) => {
    if (!options.checkReplies) return (data) => JSON.stringify(data);
    return (data) => JSON.stringify((schema as z.ZodType).parse(data));
  });

  app.setErrorHandler((error, request, reply) => {
    const problem = toProblem(error);
    // While the database is unreachable every request fails, so each gets one short line without statement and stack.
    // A busy server logs nothing: a line per rejected request would add to the load.
    if (problem.code === 'server-busy') request.log.debug(problem.message);
    else if (problem.code === 'database-unavailable')
      request.log.warn({ why: rootMessage(problem.cause) }, problem.message);
    else if (problem.status >= 500) request.log.error({ err: problem.cause ?? problem }, problem.message);
    if (problem.retryAfter) reply.header('retry-after', String(problem.retryAfter));
    return reply
      .code(problem.status)
      .type('application/json')
      .serializer(JSON.stringify)
      .send(problem.toBody(request.id));
  });
}

/** Aborts when the client disconnects. */
export function closeSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => controller.abort());
  return controller.signal;
}
