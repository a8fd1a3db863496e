import fp from 'fastify-plugin';
import { loggerOf } from '../log.ts';
import { type Bus, makeBus } from './bus.ts';
import { makeHub, type TopicReader } from './hub.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** Announces changes to this replica and the others. */
    readonly bus: Bus;
  }
}

export const eventsPlugin = fp(
  async (app) => {
    const { url, pool } = app.database;
    const bus = makeBus({ url, pool, log: loggerOf(app) });
    app.decorate('bus', bus);
    app.onStart(() => bus.start());
    app.addHook('onClose', () => bus.close());
  },
  { name: 'events', dependencies: ['base'] },
);

/** The WebSocket of dashboards. Registered by the room that can read the topics. */
export const hubPlugin = fp<{ reader: TopicReader }>(
  async (app, { reader }) => {
    const hub = makeHub(app, { bus: app.bus, log: loggerOf(app), reader });
    app.addHook('preClose', async () => hub.close());
  },
  { name: 'hub', dependencies: ['events', 'http', 'identity'] },
);
