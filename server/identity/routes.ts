import { getUser, type User } from '@cde/api/identity.ts';
import { eq, or, sql } from 'drizzle-orm';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import type { Database } from '../database/pool.ts';
import { users } from '../database/schema.ts';
import { Problem } from '../errors.ts';
import { serve } from '../http/serve.ts';
import { authorize } from './authorize.ts';

interface Deps {
  config: Config;
  database: Database;
  now: () => Date;
}

export function toUser(row: typeof users.$inferSelect): User {
  return {
    id: row.id,
    username: row.username,
    name: row.name,
    email: row.email,
    role: row.role,
    status: row.status,
    createdAt: row.createdAt.toISOString(),
    lastSeenAt: row.lastSeenAt?.toISOString() ?? null,
  };
}

export function identityRoutes(app: FastifyInstance, { database }: Deps): void {
  serve(app, getUser, async ({ actor, params }) => {
    const [row] = await database.db
      .select()
      .from(users)
      .where(
        params.user === 'me'
          ? eq(users.id, actor.userId)
          : or(eq(users.username, params.user), eq(sql`${users.id}::text`, params.user)),
      );
    authorize(actor, 'user:read', row ? { ownerId: row.id } : undefined);
    if (!row) throw new Problem('user-not-found', `There is no user ${params.user}.`);
    return toUser(row);
  });
}
