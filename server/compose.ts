import type { FastifyInstance } from 'fastify';
import { type BaseOptions, basePlugin } from './base.ts';
import { bootsPlugin } from './boots/plugin.ts';
import { accessRevocationPlugin, connectionsPlugin } from './connections/plugin.ts';
import { databasePlugin } from './database/plugin.ts';
import { diagnosisPlugin } from './diagnosis/plugin.ts';
import { eventsPlugin } from './events/plugin.ts';
import { installationHealthPlugin } from './health/plugin.ts';
import { makeFastify } from './http/fastify.ts';
import { httpPlugin } from './http/plugin.ts';
import { identityPlugin } from './identity/plugin.ts';
import { kubernetesPlugin } from './kubernetes/plugin.ts';
import type { Logger } from './log.ts';
import { nodesPlugin } from './nodes/plugin.ts';
import { orphansPlugin } from './orphans/plugin.ts';
import { portsPlugin } from './ports/plugin.ts';
import { dockerProviderPlugin } from './providers/docker/plugin.ts';
import { ec2ProviderPlugin } from './providers/ec2/plugin.ts';
import { gatewayPlugin } from './providers/gateway/plugin.ts';
import { gceProviderPlugin } from './providers/gce/plugin.ts';
import { incusProviderPlugin } from './providers/incus/plugin.ts';
import { localProviderPlugin } from './providers/local/plugin.ts';
import { providersPlugin } from './providers/plugin.ts';
import type { Provider } from './providers/provider.ts';
import { healthPlugin } from './readiness.ts';
import { satellitesPlugin } from './satellites/plugin.ts';
import { telemetryPlugin } from './telemetry/plugin.ts';
import { templatesPlugin } from './templates/plugin.ts';
import { webPlugin } from './web.ts';
import { idlePlugin } from './workspaces/activity/idle-plugin.ts';
import { workspacesPlugin } from './workspaces/plugin.ts';

export interface ServerOptions extends BaseOptions {
  log: Logger;
  /** Replaces the providers of the settings, in tests. */
  providers?: ReadonlyMap<string, Provider> | undefined;
  /** Where the built dashboard is; without it no pages are served. */
  web?: string | undefined;
  /** Whether replies are validated against the contract: in tests and development. */
  checkReplies?: boolean | undefined;
}

/**
 * Composes the server on a migrated database. The result neither listens nor works in the background: tests call
 * `inject()` on it, and `startControlPlane` starts it. Hooks run in the order of registration at the start and when
 * the server is about to close (`preClose`), and in reverse once all requests have been answered (`onClose`).
 */
export async function composeServer(options: ServerOptions): Promise<FastifyInstance> {
  const { config, database, log, now, sleep, providers, web } = options;
  const app = makeFastify({ config, log });
  await app.register(basePlugin, { config, database, now, sleep });
  await app.register(httpPlugin, { checkReplies: options.checkReplies ?? false });
  await app.register(databasePlugin);
  await app.register(eventsPlugin);
  await app.register(identityPlugin);
  await app.register(telemetryPlugin);
  await app.register(accessRevocationPlugin);
  await app.register(satellitesPlugin);
  await app.register(providersPlugin, { providers });
  await app.register(gatewayPlugin);
  await app.register(localProviderPlugin);
  await app.register(dockerProviderPlugin);
  await app.register(incusProviderPlugin);
  await app.register(bootsPlugin);
  await app.register(ec2ProviderPlugin);
  await app.register(gceProviderPlugin);
  await app.register(kubernetesPlugin);
  await app.register(orphansPlugin);
  await app.register(templatesPlugin);
  await app.register(idlePlugin);
  await app.register(workspacesPlugin);
  await app.register(nodesPlugin);
  await app.register(connectionsPlugin);
  await app.register(diagnosisPlugin);
  await app.register(portsPlugin);
  await app.register(installationHealthPlugin);
  await app.register(healthPlugin);
  if (web) await app.register(webPlugin, { folder: web, satellites: app.satellites.store.listWebSatellites });
  return app;
}
