import fp from 'fastify-plugin';
import { loggerOf } from '../../log.ts';
import { makeEc2Provider } from './provider.ts';

/** Workspaces as virtual machines on Amazon EC2. */
export const ec2ProviderPlugin = fp(
  async (app) => {
    const { config } = app;
    if (!config.ec2 || app.hasOwnProviders) return;
    // Before the server listens: loading it blocks the event loop for a second or more.
    await import('@aws-sdk/client-ec2');
    const provider = makeEc2Provider({
      address: config.ec2,
      installation: app.installation,
      hasRegistered: app.boots.hasRegistered,
      certificateAuthorities: config.agentCa,
      log: loggerOf(app),
      now: app.now,
    });
    app.providers.set('ec2', provider);
    app.addHook('onClose', () => provider.close());
  },
  { name: 'ec2-provider', dependencies: ['providers', 'boots'] },
);
