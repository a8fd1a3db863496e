import { createHash } from 'node:crypto';
import fp from 'fastify-plugin';
import type { Auth } from '../http/actor.ts';
import { deleteOldAudit } from './audit/audit.ts';
import { makeAuth } from './auth/auth.ts';
import { allowedOrigins } from './auth/origins.ts';
import { type Keys, loadKeys } from './keys.ts';
import { identityRoutes } from './routes.ts';
import { sessionCookieName } from './sessions/sessions.ts';
import { sweepIdentity } from './sweep.ts';

declare module 'fastify' {
  interface FastifyInstance {
    readonly auth: Auth;
    readonly keys: Keys;
    /** Labels what belongs to this installation elsewhere: the same for all replicas, for as long as the database exists. */
    readonly installation: string;
  }
}

/** Users, sessions, tokens, sign-in, permissions and the audit log. */
export const identityPlugin = fp(
  async (app) => {
    const { config, database, bus, now, sleep } = app;
    const keys = await loadKeys(database, config.dataDir, config.secretKey);
    app.decorate('keys', keys);
    app.decorate(
      'installation',
      createHash('sha256').update(keys.tickets.publicKey).digest('hex').slice(0, 12),
    );
    const origins = allowedOrigins(config);
    app.decorate(
      'auth',
      makeAuth({ database, now, origins: () => origins, cookieName: sessionCookieName(config) }),
    );
    identityRoutes(app, { config, database, keys, bus, now, sleep });
    app.onSweep(() => sweepIdentity(database, now));
    app.onSweep(() => deleteOldAudit(database, config.auditDays, now));
  },
  { name: 'identity', dependencies: ['base', 'http', 'events'] },
);
