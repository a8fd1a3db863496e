import type { PortLevel } from '@cde/api/ports.ts';
import { and, eq, gt, ne } from 'drizzle-orm';
import type { Database, Queryable } from '../database/pool.ts';
import { browserSessions, portCodes, portShares, users, workspaces } from '../database/schema.ts';
import type { UserActor } from '../http/actor.ts';
import { hashSecret, makeSecret } from '../identity/secrets.ts';
import type { PortRef } from './names.ts';

/** A port of a workspace, and what access to it depends on. */
export interface FoundPort {
  workspaceId: string;
  owner: UserActor;
  port: number;
  /** Null if the port is not shared or the owner is suspended. */
  level: PortLevel | null;
}

/** Finds the workspace and the port's share; null if there is no such workspace. */
export async function findPort({ db }: Database, ref: PortRef): Promise<FoundPort | null> {
  const [row] = await db
    .select({
      workspaceId: workspaces.id,
      ownerId: users.id,
      owner: users.username,
      role: users.role,
      ownerStatus: users.status,
      level: portShares.level,
    })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .leftJoin(portShares, and(eq(portShares.workspaceId, workspaces.id), eq(portShares.port, ref.port)))
    .where(
      and(
        ne(workspaces.status, 'deleted'),
        'id' in ref
          ? eq(workspaces.id, ref.id)
          : and(eq(users.username, ref.owner), eq(workspaces.name, ref.name)),
      ),
    );
  if (!row) return null;
  return {
    workspaceId: row.workspaceId,
    port: ref.port,
    level: row.ownerStatus === 'active' ? row.level : null,
    // The server connects as the owner, because the agent accepts nobody else.
    owner: {
      kind: 'user',
      userId: row.ownerId,
      username: row.owner,
      role: row.role,
      scopes: ['connect'],
      via: { kind: 'token', id: 'port-proxy' },
    },
  };
}

/** The user of a browser session; null if it has ended or the user is suspended. */
export async function findSession({ db }: Database, sessionId: string, now: Date): Promise<UserActor | null> {
  const [row] = await db
    .select({ user: users })
    .from(browserSessions)
    .innerJoin(users, eq(users.id, browserSessions.userId))
    .where(
      and(eq(browserSessions.id, sessionId), gt(browserSessions.expiresAt, now), eq(users.status, 'active')),
    );
  if (!row) return null;
  const { id, username, role } = row.user;
  return {
    kind: 'user',
    userId: id,
    username,
    role,
    scopes: ['all'],
    via: { kind: 'cookie', id: sessionId },
  };
}

export async function listShares(
  db: Queryable,
  workspaceId: string,
): Promise<{ port: number; level: PortLevel }[]> {
  return db
    .select({ port: portShares.port, level: portShares.level })
    .from(portShares)
    .where(eq(portShares.workspaceId, workspaceId))
    .orderBy(portShares.port);
}

/** Shares a port at `level`, or stops sharing it (null). Returns the previous level. */
export async function setShare(
  tx: Queryable,
  { workspaceId, port, level }: { workspaceId: string; port: number; level: PortLevel | null },
  now: Date,
): Promise<PortLevel | null> {
  const of = and(eq(portShares.workspaceId, workspaceId), eq(portShares.port, port));
  const [before] = await tx.select().from(portShares).where(of).for('update');
  if (level === null) await tx.delete(portShares).where(of);
  else
    await tx
      .insert(portShares)
      .values({ workspaceId, port, level, sharedAt: now })
      .onConflictDoUpdate({
        target: [portShares.workspaceId, portShares.port],
        set: { level, sharedAt: now },
      });
  return before?.level ?? null;
}

/** Long enough for a redirect, and too short for a code found in a log to be useful. */
const codeLifetimeMs = 60_000;

/** A code for `host` that works once, within a minute, in the browser whose state cookie hashes to `state`. */
export async function makeCode(
  { db }: Database,
  { sessionId, host, state }: { sessionId: string; host: string; state: string },
  now: Date,
): Promise<string> {
  const code = makeSecret('cde_port');
  await db.insert(portCodes).values({
    codeHash: hashSecret(code),
    sessionId,
    host,
    state,
    expiresAt: new Date(now.getTime() + codeLifetimeMs),
  });
  return code;
}

/** Deletes a code, and returns the browser session behind it; null if it is not valid for this host and browser. */
export async function redeemCode(
  { db }: Database,
  { code, host, states }: { code: string; host: string; states: string[] },
  now: Date,
): Promise<string | null> {
  const [row] = await db
    .delete(portCodes)
    .where(eq(portCodes.codeHash, hashSecret(code)))
    .returning();
  if (!row || row.host !== host || !states.includes(row.state) || row.expiresAt <= now) return null;
  return row.sessionId;
}
