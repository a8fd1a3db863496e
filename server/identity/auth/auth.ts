import { timingSafeEqual } from 'node:crypto';
import { sessionKeyHeader, sessionKeyProtocol } from '@cde/api/identity.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, eq, gt, inArray, isNull, lt, or, sql } from 'drizzle-orm';
import { makeCoalescer } from '../../database/coalesce.ts';
import type { Database } from '../../database/pool.ts';
import { apiTokens, browserSessions, builds, satellites, users, workspaces } from '../../database/schema.ts';
import type { Actor, Auth } from '../../http/actor.ts';
import { hashSecret } from '../secrets.ts';
import { authorize } from './authorize.ts';
import { runIdempotent } from './idempotency.ts';

/** The precision of `lastSeenAt` and `lastUsedAt`. */
const lastSeenIntervalMs = 60_000;

interface Options {
  database: Database;
  now: () => Date;
  /** The origins that browsers can send changes from: those of the access URL and the listening address. */
  origins: () => string[];
  cookieName: string;
}

type Headers = Record<string, string | string[] | undefined>;

/**
 * All values of a cookie. There can be several, because other ports and sibling host names can set a cookie of the same
 * name, and browsers do not say which one is ours.
 */
export function readCookies(header: string | undefined, name: string): string[] {
  return (header ?? '').split(';').flatMap((part) => {
    const at = part.indexOf('=');
    return at > 0 && part.slice(0, at).trim() === name ? [part.slice(at + 1).trim()] : [];
  });
}

/** The session key that the dashboard sends in a header, or as a WebSocket subprotocol. */
function readSessionKey(headers: Headers): string | null {
  const header = headers[sessionKeyHeader];
  if (typeof header === 'string') return header;
  const offered = String(headers['sec-websocket-protocol'] ?? '').split(',');
  const protocol = offered.map((each) => each.trim()).find((each) => each.startsWith(sessionKeyProtocol));
  return protocol?.slice(sessionKeyProtocol.length) ?? null;
}

/** Implements http's `Auth` on the database. */
export function makeAuth({ database, now, origins, cookieName }: Options): Auth {
  const { db } = database;

  // At most once a minute, because a write per request would cost more than the request. The condition is repeated in
  // SQL so that only one of many concurrent requests writes.
  async function recordLastSeen(
    user: { id: string; lastSeenAt: Date | null },
    token?: { id: string; lastUsedAt: Date | null },
  ): Promise<void> {
    const at = now();
    const before = new Date(at.getTime() - lastSeenIntervalMs);
    const isDue = (last: Date | null) => last === null || last < before;
    try {
      if (isDue(user.lastSeenAt))
        await db
          .update(users)
          .set({ lastSeenAt: at })
          .where(and(eq(users.id, user.id), or(isNull(users.lastSeenAt), lt(users.lastSeenAt, before))));
      if (token && isDue(token.lastUsedAt))
        await db
          .update(apiTokens)
          .set({ lastUsedAt: at })
          .where(
            and(
              eq(apiTokens.id, token.id),
              or(isNull(apiTokens.lastUsedAt), lt(apiTokens.lastUsedAt, before)),
            ),
          );
    } catch {
      // A failed write (a standby database is read-only) must not fail the request.
    }
  }

  // Every request with a token makes this query, so it is prepared, and concurrent requests with the same token share
  // one execution. The result is not cached: a revoked token is rejected by the next request.
  const coalesceTokenRow = makeCoalescer<Awaited<ReturnType<typeof tokenRow>>>();
  const tokenQuery = db
    .select({ token: apiTokens, user: users })
    .from(apiTokens)
    .innerJoin(users, eq(users.id, apiTokens.userId))
    .where(eq(apiTokens.tokenHash, sql.placeholder('hash')))
    .prepare('token-by-hash');
  async function tokenRow(hash: Buffer) {
    const [row] = await tokenQuery.execute({ hash });
    return row ?? null;
  }

  async function authenticateToken(secret: string): Promise<Actor> {
    const hash = hashSecret(secret);
    if (secret.startsWith('cde_agent_')) return authenticateAgent(hash);
    if (secret.startsWith('cde_satellite_')) return authenticateSatellite(hash);
    const row = await coalesceTokenRow(hash.toString('base64'), () => tokenRow(hash));
    if (!row)
      throw new Problem('token-invalid', 'The server does not know this token.', {
        hint: 'It may have been revoked.',
        actions: [{ kind: 'sign-in' }],
      });
    if (row.token.expiresAt <= now())
      throw new Problem(
        'token-expired',
        `This token expired on ${row.token.expiresAt.toISOString().slice(0, 10)}.`,
        { actions: [{ kind: 'sign-in' }] },
      );
    if (row.user.status === 'suspended') throw makeSuspendedProblem();
    await recordLastSeen(row.user, row.token);
    return {
      kind: 'user',
      userId: row.user.id,
      username: row.user.username,
      role: row.user.role,
      scopes: row.token.scopes,
      via: { kind: 'token', id: row.token.id },
    };
  }

  async function authenticateAgent(hash: Buffer): Promise<Actor> {
    const [row] = await db
      .select({ buildId: builds.id, workspaceId: builds.workspaceId, current: workspaces.agentBuildId })
      .from(builds)
      .innerJoin(workspaces, eq(workspaces.id, builds.workspaceId))
      .where(eq(builds.agentTokenHash, hash));
    if (!row) throw new Problem('token-invalid', 'The server does not know this agent token.');
    if (row.current !== row.buildId)
      throw new Problem('agent-superseded', 'The workspace has a newer build, or it was stopped.');
    return { kind: 'agent', workspaceId: row.workspaceId, buildId: row.buildId };
  }

  async function authenticateSatellite(hash: Buffer): Promise<Actor> {
    const [row] = await db
      .select({ id: satellites.id, name: satellites.name })
      .from(satellites)
      .where(eq(satellites.tokenHash, hash));
    if (!row)
      throw new Problem('token-invalid', 'The server does not know this satellite token.', {
        hint: 'The satellite may have been removed. Add it again.',
        actions: [{ kind: 'add-satellite' }],
      });
    return { kind: 'satellite', satelliteId: row.id, name: row.name };
  }

  // Browsers send the cookie to every port of the host, so any program listening there can read it. The session key is in
  // the storage of the dashboard's origin. Sessions are looked up by key, so a planted cookie has no effect.
  async function authenticateSession(
    key: string,
    cookies: string[],
    request: { method: string },
    headers: Headers,
  ): Promise<Actor> {
    const [row] = await db
      .select({ session: browserSessions, user: users })
      .from(browserSessions)
      .innerJoin(users, eq(users.id, browserSessions.userId))
      .where(and(eq(browserSessions.keyHash, hashSecret(key)), gt(browserSessions.expiresAt, now())));
    if (!row || !cookies.some((cookie) => timingSafeEqual(hashSecret(cookie), row.session.tokenHash)))
      return { kind: 'anonymous' };
    if (row.user.status === 'suspended') throw makeSuspendedProblem();
    const upgrade = String(headers.upgrade ?? '').toLowerCase() === 'websocket';
    if ((request.method !== 'GET' && request.method !== 'HEAD') || upgrade) rejectForeignOrigin(headers);
    await recordLastSeen(row.user);
    return {
      kind: 'user',
      userId: row.user.id,
      username: row.user.username,
      role: row.user.role,
      scopes: ['all'],
      via: { kind: 'cookie', id: row.session.id },
    };
  }

  // Other origins cannot read the key. This check protects even if one of them has obtained it.
  function rejectForeignOrigin(headers: Headers): void {
    const origin = headers.origin;
    const site = headers['sec-fetch-site'];
    if (typeof origin === 'string' && origins().includes(origin)) return;
    if (origin === undefined && (site === 'same-origin' || site === 'none')) return;
    throw new Problem('csrf-rejected', 'This request did not come from the dashboard.', {
      detail: `Origin: ${typeof origin === 'string' ? origin : 'none'}`,
      hint: 'Open the dashboard at its own address (CDE_ACCESS_URL), or use a token.',
    });
  }

  return {
    async authenticate(headers, request) {
      const bearer = /^Bearer (\S+)$/i.exec(String(headers.authorization ?? ''));
      if (bearer) return authenticateToken(bearer[1]!);
      const key = readSessionKey(headers);
      const cookies = key === null ? [] : readCookies(headers.cookie as string | undefined, cookieName);
      if (key === null || cookies.length === 0) return { kind: 'anonymous' };
      return authenticateSession(key, cookies, request, headers);
    },
    async findSessionsByCookie(cookie) {
      const hashes = readCookies(cookie, cookieName).map(hashSecret);
      if (hashes.length === 0) return [];
      const rows = await db
        .select({ id: browserSessions.id })
        .from(browserSessions)
        .where(and(inArray(browserSessions.tokenHash, hashes), gt(browserSessions.expiresAt, now())));
      return rows.map(({ id }) => id);
    },
    authorize,
    runIdempotent: (actor, key, fingerprint, work) =>
      runIdempotent(database, now, actor, key, fingerprint, work),
  };
}

export function makeSuspendedProblem(): Problem {
  return new Problem('user-suspended', 'This account is suspended.', {
    hint: 'Ask an owner of this installation.',
  });
}
