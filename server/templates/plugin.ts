import fp from 'fastify-plugin';
import { type DryRun, templateRoutes } from './routes.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** Tries a template on its cluster. Provided by the room of that cluster's kind. */
    readonly dryRun: DryRun;
  }
}

/** Templates and their versions. */
export const templatesPlugin = fp(
  async (app) => {
    const { database, dryRun, now } = app;
    templateRoutes(app, { database, dryRun, now });
  },
  { name: 'templates', dependencies: ['http', 'identity'], decorators: { fastify: ['dryRun'] } },
);
