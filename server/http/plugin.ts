import { Problem } from '@cde/api/problem.ts';
import { websocketOptions } from '@cde/satellite/relay/plugin.ts';
import websocket from '@fastify/websocket';
import fp from 'fastify-plugin';
import { openApi } from './openapi.ts';
import { rejectWhileClosing } from './protocol-errors.ts';
import { installHttp } from './serve.ts';
import { trackUnusedSockets } from './unused-sockets.ts';

/** Queries that can wait for a database connection before requests are rejected. */
const maxWaitingQueries = 500;

/** After the first visit with https, browsers never use http, where cookies could be read and planted. */
const strictTransport = 'max-age=31536000';

/** Validation, errors, limits, headers, WebSockets and the API's description. Everything that serves routes needs it. */
export const httpPlugin = fp<{ checkReplies: boolean }>(
  async (app, { checkReplies }) => {
    const { config, database } = app;
    rejectWhileClosing(app);
    installHttp(app, { checkReplies });
    // Failing fast is better than a queue that delays everyone: each waiting query is a waiting person.
    app.addHook('onRequest', async () => {
      if (database.pool.waitingCount > maxWaitingQueries)
        throw new Problem('server-busy', 'The server is overloaded.', {
          hint: 'Try again in a few seconds.',
          retryAfter: 2,
        });
    });
    app.addHook('onSend', async (request, reply) => {
      reply.header('x-request-id', request.id);
      reply.header('x-content-type-options', 'nosniff');
      if (config.accessUrl.startsWith('https:')) reply.header('strict-transport-security', strictTransport);
      // Replies depend on the user, so no cache may store them, not even the browser's.
      if (request.url.startsWith('/api/v1/') && !reply.hasHeader('cache-control'))
        reply.header('cache-control', 'no-store');
    });
    app.setNotFoundHandler((request) => {
      throw new Problem(
        'route-not-found',
        `There is nothing at ${request.method} ${request.url.split('?')[0]}.`,
        { hint: 'The API is described at /api/docs.' },
      );
    });
    const closeUnusedSockets = trackUnusedSockets(app.server);
    await app.register(websocket, { options: websocketOptions });
    await openApi(app);
    app.addHook('preClose', async () => closeUnusedSockets());
  },
  { name: 'http', dependencies: ['base'] },
);
