import { randomInt } from 'node:crypto';
import { Problem } from '@cde/api/problem.ts';
import { and, eq, gt, isNotNull, isNull, or } from 'drizzle-orm';
import { type Database, isDuplicate } from '../../database/pool.ts';
import { cliLogins, users } from '../../database/schema.ts';
import type { Caller, UserActor } from '../../http/actor.ts';
import { writeAudit } from '../audit/audit.ts';
import { hashSecret, makeSecret } from '../secrets.ts';
import { insertToken } from '../sessions/tokens.ts';

/** Long enough to sign in first, short enough that guessing a code is hopeless. */
const loginTtlMs = 10 * 60_000;
/** Pending logins from one address, which a whole office behind NAT may share. */
const maxPending = 100;
/** No characters that look alike (0 O, 1 I, 2 Z, 5 S, 8 B) and no vowels, so no words. 23^8 codes. */
const codeAlphabet = 'CDFGHJKLMNPQRTVWXY34679';
const tokenDays = 90;
const tokenNameLength = 80;

function makeUserCode(): string {
  const pick = () => codeAlphabet[randomInt(codeAlphabet.length)];
  const half = () => Array.from({ length: 4 }, pick).join('');
  return `${half()}-${half()}`;
}

/** Converts a code as typed to the stored form: `abcdefgh` and `ABCD EFGH` become `ABCD-EFGH`. */
function normalizeUserCode(userCode: string): string {
  const plain = userCode.replace(/[^A-Za-z0-9]/g, '').toUpperCase();
  return `${plain.slice(0, 4)}-${plain.slice(4)}`;
}

interface Deps {
  database: Database;
  now: () => Date;
}

/** Starts a login. Throws `sign-in-throttled` if the address has too many pending logins. */
export async function startCliLogin(
  { database: { db }, now }: Deps,
  { hostname, ip }: { hostname: string; ip: string },
): Promise<{ deviceCode: string; userCode: string; expiresAt: Date }> {
  const createdAt = now();
  const pending = await db.$count(cliLogins, and(eq(cliLogins.ip, ip), gt(cliLogins.expiresAt, createdAt)));
  if (pending >= maxPending)
    throw new Problem('sign-in-throttled', 'Too many logins from your address are pending.', {
      hint: 'Finish one of them, or wait a few minutes.',
      retryAfter: 60,
    });
  const deviceCode = makeSecret('cde_device');
  const expiresAt = new Date(createdAt.getTime() + loginTtlMs);
  for (;;) {
    const userCode = makeUserCode();
    try {
      await db.insert(cliLogins).values({
        deviceCodeHash: hashSecret(deviceCode),
        userCode,
        // It is shown to the person who approves the login: no control characters that could disguise it.
        hostname: hostname.replace(/\p{C}/gu, '').trim() || 'an unnamed computer',
        ip,
        createdAt,
        expiresAt,
      });
      return { deviceCode, userCode, expiresAt };
    } catch (error) {
      if (!isDuplicate(error)) throw error;
    }
  }
}

const notFound = () =>
  new Problem('cli-login-not-found', 'There is no pending login with this code.', {
    detail: 'A code expires after 10 minutes.',
    hint: 'Compare it with the code in your terminal, or start the login there again.',
  });

/** The pending login with this code, unless another user has approved it. Throws `cli-login-not-found`. */
export async function findCliLogin(
  { database: { db }, now }: Deps,
  userCode: string,
  userId: string,
): Promise<{ hostname: string; createdAt: Date; ip: string | null }> {
  const [row] = await db
    .select()
    .from(cliLogins)
    .where(
      and(
        eq(cliLogins.userCode, normalizeUserCode(userCode)),
        gt(cliLogins.expiresAt, now()),
        isNull(cliLogins.collectedAt),
        or(isNull(cliLogins.userId), eq(cliLogins.userId, userId)),
      ),
    );
  if (!row) throw notFound();
  return row;
}

/** Approves a login. Idempotent for the same user. Throws `cli-login-not-found`. */
export async function approveCliLogin(
  { database: { db }, now }: Deps,
  caller: Caller<UserActor>,
  userCode: string,
): Promise<void> {
  const { userId } = caller.actor;
  await db.transaction(async (tx) => {
    const isPending = and(
      eq(cliLogins.userCode, normalizeUserCode(userCode)),
      gt(cliLogins.expiresAt, now()),
      isNull(cliLogins.collectedAt),
    );
    const [row] = await tx
      .update(cliLogins)
      .set({ userId })
      .where(and(isPending, isNull(cliLogins.userId)))
      .returning();
    if (row) {
      await writeAudit(tx, caller, {
        action: 'cli-login.approve',
        targetType: 'session',
        targetId: row.userCode,
        targetName: row.hostname,
        after: { hostname: row.hostname, ip: row.ip },
      });
      return;
    }
    const approvedCount = await tx.$count(cliLogins, and(isPending, eq(cliLogins.userId, userId)));
    if (approvedCount === 0) throw notFound();
  });
}

export type CliLoginResult =
  | { status: 'pending' | 'expired'; token: null; username: null }
  | { status: 'approved'; token: string; username: string };

/** Creates the token of an approved login, once. `expired` if the login is expired, already collected or unknown. */
export async function collectCliLogin(
  { database: { db }, now }: Deps,
  deviceCode: string,
  request: { requestId: string; ip: string },
): Promise<CliLoginResult> {
  const at = now();
  const hash = hashSecret(deviceCode);
  // Most polls find the login still pending, so that path reads one row and writes none.
  const [login] = await db.select().from(cliLogins).where(eq(cliLogins.deviceCodeHash, hash));
  if (!login || login.expiresAt <= at || login.collectedAt)
    return { status: 'expired', token: null, username: null };
  if (!login.userId) return { status: 'pending', token: null, username: null };
  return db.transaction(async (tx): Promise<CliLoginResult> => {
    const [taken] = await tx
      .update(cliLogins)
      .set({ collectedAt: at })
      .where(
        and(eq(cliLogins.deviceCodeHash, hash), isNull(cliLogins.collectedAt), isNotNull(cliLogins.userId)),
      )
      .returning();
    const [user] = taken ? await tx.select().from(users).where(eq(users.id, taken.userId!)) : [];
    if (!taken || !user || user.status !== 'active')
      return { status: 'expired', token: null, username: null };
    const { secret } = await insertToken(
      tx,
      {
        actor: {
          kind: 'user',
          userId: user.id,
          username: user.username,
          role: user.role,
          scopes: ['all'],
          via: { kind: 'token', id: '' },
        },
        ...request,
      },
      {
        name: `cde on ${taken.hostname}`.slice(0, tokenNameLength),
        scopes: ['all'],
        days: tokenDays,
        now: at,
      },
    );
    return { status: 'approved', token: secret, username: user.username };
  });
}
