import { dayMs } from '@cde/api/durations.ts';
import { sessionCookie } from '@cde/api/identity.ts';
import { Problem } from '@cde/api/problem.ts';
import type {} from '@fastify/cookie';
import { and, eq, gt, isNull, sql } from 'drizzle-orm';
import type { FastifyReply } from 'fastify';
import { v7 } from 'uuid';
import type { Config } from '../../config.ts';
import type { Database, Queryable } from '../../database/pool.ts';
import { browserSessions, cliLogins, oneTimeLinks, users } from '../../database/schema.ts';
import { writeAudit } from '../audit/audit.ts';
import { makeSuspendedProblem } from '../auth/auth.ts';
import { hashSecret, makeSecret } from '../secrets.ts';

type UserRow = typeof users.$inferSelect;

/** Long enough to switch windows, short enough for a link that stays in a terminal's scrollback. */
const linkTtlMs = 10 * 60_000;

/** What a new session records of the request that started it. */
export interface SignInRequest {
  requestId: string;
  ip: string;
  userAgent: string | undefined;
}

/** The two secrets of a new session, and its expiry. */
export interface NewSession {
  secret: string;
  sessionKey: string;
  expiresAt: Date;
}

/**
 * Starts a browser session and writes its audit row. Throws `user-suspended`, and `sign-in-failed` if the account changed
 * in the meantime. `secret` belongs in the cookie, `sessionKey` in the reply's body and nowhere else.
 */
export async function startSession(
  tx: Queryable,
  user: UserRow,
  how: 'password' | 'one-time-link' | 'oidc' | 'password-change',
  request: SignInRequest,
  { now, sessionDays }: { now: Date; sessionDays: number },
): Promise<NewSession> {
  if (user.status === 'suspended') throw makeSuspendedProblem();
  // If the account was suspended or its password changed after `user` was read, its sessions have just been ended, and a
  // new one must not appear.
  const unchanged = await tx
    .update(users)
    .set({ lastSeenAt: now })
    .where(
      and(
        eq(users.id, user.id),
        eq(users.status, 'active'),
        sql`${users.passwordHash} IS NOT DISTINCT FROM ${user.passwordHash}`,
      ),
    )
    .returning({ id: users.id });
  if (unchanged.length === 0)
    throw new Problem('sign-in-failed', 'The account was changed during the sign-in.', {
      hint: 'Sign in again.',
    });
  const id = v7();
  const secret = makeSecret('cde_session');
  const sessionKey = makeSecret('cde_session_key');
  const expiresAt = new Date(now.getTime() + sessionDays * dayMs);
  await tx.insert(browserSessions).values({
    id,
    tokenHash: hashSecret(secret),
    keyHash: hashSecret(sessionKey),
    userId: user.id,
    createdAt: now,
    expiresAt,
    ip: request.ip,
    userAgent: request.userAgent?.slice(0, 400) ?? null,
  });
  await writeAudit(
    tx,
    {
      actor: {
        kind: 'user',
        userId: user.id,
        username: user.username,
        role: user.role,
        scopes: ['all'],
        via: { kind: 'cookie', id },
      },
      requestId: request.requestId,
      ip: request.ip,
    },
    {
      action: 'session.create',
      targetType: 'session',
      targetId: id,
      targetName: user.username,
      after: { how, expiresAt: expiresAt.toISOString() },
    },
  );
  return { secret, sessionKey, expiresAt };
}

/** Ends all sessions, one-time links and pending CLI logins of a user: at suspension and password change. */
export async function revokeAccess(tx: Queryable, userId: string): Promise<void> {
  await tx.delete(browserSessions).where(eq(browserSessions.userId, userId));
  await tx.delete(oneTimeLinks).where(eq(oneTimeLinks.userId, userId));
  await tx.delete(cliLogins).where(eq(cliLogins.userId, userId));
}

const isSecure = ({ accessUrl }: Pick<Config, 'accessUrl'>) => accessUrl.startsWith('https:');

/** With https, browsers accept `__Host-` cookies only from the host itself, so no other host name can plant one. */
export const sessionCookieName = (config: Pick<Config, 'accessUrl'>): string =>
  isSecure(config) ? `__Host-${sessionCookie}` : sessionCookie;

const cookieOptions = (config: Pick<Config, 'accessUrl'>) =>
  ({ path: '/', httpOnly: true, sameSite: 'lax', secure: isSecure(config) }) as const;

export function setSessionCookie(
  reply: FastifyReply,
  config: Pick<Config, 'accessUrl'>,
  { secret, expiresAt }: NewSession,
): void {
  reply.setCookie(sessionCookieName(config), secret, { ...cookieOptions(config), expires: expiresAt });
}

export function clearSessionCookie(reply: FastifyReply, config: Pick<Config, 'accessUrl'>): void {
  reply.clearCookie(sessionCookieName(config), cookieOptions(config));
}

/**
 * Creates a link that signs the user in once, within 10 minutes. `path` is appended to the access URL. The code is in the
 * fragment, which browsers do not send, so that it does not appear in logs of proxies.
 */
export async function makeOneTimeLink(
  { db }: { db: Queryable },
  userId: string,
  now: () => Date,
): Promise<{ code: string; path: string; expiresAt: Date }> {
  const code = makeSecret('cde_link');
  const createdAt = now();
  const expiresAt = new Date(createdAt.getTime() + linkTtlMs);
  await db.insert(oneTimeLinks).values({ codeHash: hashSecret(code), userId, createdAt, expiresAt });
  return { code, path: `/sign-in#code=${code}`, expiresAt };
}

/** Redeems a link and starts a session in one transaction. Throws `link-invalid`, `user-suspended`. */
export async function redeemOneTimeLink(
  { db }: Database,
  code: string,
  request: SignInRequest,
  { now, sessionDays }: { now: Date; sessionDays: number },
): Promise<{ user: UserRow } & NewSession> {
  return db.transaction(async (tx) => {
    const [link] = await tx
      .update(oneTimeLinks)
      .set({ usedAt: now })
      .where(
        and(
          eq(oneTimeLinks.codeHash, hashSecret(code)),
          isNull(oneTimeLinks.usedAt),
          gt(oneTimeLinks.expiresAt, now),
        ),
      )
      .returning({ userId: oneTimeLinks.userId });
    const [user] = link ? await tx.select().from(users).where(eq(users.id, link.userId)) : [];
    if (!user)
      throw new Problem('link-invalid', 'This link is no longer valid.', {
        detail: 'A link works once, within 10 minutes.',
        hint: 'Sign in another way, or create a new link.',
      });
    return { user, ...(await startSession(tx, user, 'one-time-link', request, { now, sessionDays })) };
  });
}
