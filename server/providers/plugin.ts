import fp from 'fastify-plugin';
import type { Provider } from './provider.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** The providers by name. The plugin that adds one to it also closes it. */
    readonly providers: Map<string, Provider>;
    /** Whether tests have given the providers; then no others are added. */
    readonly hasOwnProviders: boolean;
  }
}

export const providersPlugin = fp<{ providers?: ReadonlyMap<string, Provider> | undefined }>(
  async (app, options) => {
    app.decorate('providers', new Map(options.providers));
    app.decorate('hasOwnProviders', options.providers !== undefined);
    app.addHook('onClose', async () => {
      for (const provider of options.providers?.values() ?? []) await provider.close();
    });
  },
  { name: 'providers', dependencies: ['base'] },
);
