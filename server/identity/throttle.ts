import { createHash } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { type ErrorCode, Problem } from '@cde/api/problem.ts';
import { and, desc, eq, gt, inArray, lt } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database } from '../database/pool.ts';
import { audit, signInFailures } from '../database/schema.ts';

const minute = 60_000;
/** Failures older than this no longer count. */
export const windowMs = 15 * minute;

/** Failures within the window after which the next attempt is refused. */
export const limits = {
  /** One address on one account: a person who mistypes. */
  usernameAtAddress: 10,
  /** One account from everywhere: guessing that is spread over many addresses. */
  username: 30,
  /** One address on all accounts: one password tried on everybody. An office behind NAT shares it. */
  address: 100,
  /** One signed-in user: guesses at one's own current password, or at CLI codes. */
  user: 10,
};

/** How long an address that a user once signed in from counts as theirs. */
const knownForMs = 90 * 24 * 60 * minute;

interface Deps {
  database: Database;
  now: () => Date;
}

interface Limit {
  subject: string;
  most: number;
  /** Success clears it. */
  forgive?: boolean;
}

/** What throttling takes for one address: the address, or the /64 that one IPv6 customer has. */
export function network(ip: string): string {
  const plain = ip.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail = ''] = plain.replace(/%.*$/, '').split('::');
  const left = head.split(':').filter(Boolean);
  const right = tail.split(':').filter(Boolean);
  const groups = plain.includes('::')
    ? [...left, ...Array(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right]
    : left;
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}

// People type their password where the username goes, so names are kept as a hash.
const digest = (name: string) => createHash('sha256').update(name).digest('base64url').slice(0, 22);

/**
 * The limits of a sign-in with a password. An account under attack from elsewhere stays open to the
 * addresses that its user has signed in from, and one-time links, OIDC and tokens are not throttled at
 * all: failures of others never shut a user out.
 */
export async function signInLimits({ database, now }: Deps, username: string, ip: string): Promise<Limit[]> {
  const name = digest(username);
  const from = network(ip);
  const wide: Limit = { subject: `username:${name}`, most: limits.username };
  const result: Limit[] = [
    { subject: `address:${from}`, most: limits.address },
    { subject: `username:${name} address:${from}`, most: limits.usernameAtAddress, forgive: true },
  ];
  const failures = await database.db.$count(signInFailures, recent(wide.subject, now()));
  if (failures < wide.most || !(await isKnown({ database, now }, username, ip))) result.push(wide);
  return result;
}

/** The limit of a signed-in user's guesses at `what`. */
export const userLimit = (what: 'password' | 'cli-code', userId: string): Limit[] => [
  { subject: `${what}:${userId}`, most: limits.user, forgive: what === 'password' },
];

async function isKnown({ database, now }: Deps, username: string, ip: string): Promise<boolean> {
  const rows = await database.db
    .select({ id: audit.id })
    .from(audit)
    .where(
      and(
        eq(audit.actor, username),
        eq(audit.action, 'session.create'),
        eq(audit.ip, ip),
        gt(audit.at, new Date(now().getTime() - knownForMs)),
      ),
    )
    .limit(1);
  return rows.length > 0;
}

const recent = (subject: string, now: Date) =>
  and(eq(signInFailures.subject, subject), gt(signInFailures.at, new Date(now.getTime() - windowMs)));

/** Throws `sign-in-throttled`, with the seconds until the oldest failure that counts is forgotten. */
async function check({ database, now }: Deps, given: Limit[], own: number): Promise<void> {
  for (const { subject, most } of given) {
    const rows = await database.db
      .select({ at: signInFailures.at })
      .from(signInFailures)
      .where(recent(subject, now()))
      .orderBy(desc(signInFailures.at))
      .limit(most + own);
    if (rows.length < most + own) continue;
    const free = rows[most - 1 + own]!.at.getTime() + windowMs - now().getTime();
    throw new Problem('sign-in-throttled', 'Too many failed attempts.', {
      detail: `At most ${most} within ${windowMs / minute} minutes.`,
      hint: 'Wait, or sign in another way: single sign-on, or a one-time link.',
      retryAfter: Math.max(1, Math.ceil(free / 1000)),
    });
  }
}

/**
 * Runs one guess under `given` limits. A guess is counted before it is judged, so that a thousand at the
 * same moment do not all pass; it stops counting unless `work` fails with one of `failures`. A refused
 * attempt does not count, so that refusals end on time.
 */
export async function throttled<T>(
  deps: Deps,
  given: Limit[],
  failures: ErrorCode[],
  work: () => Promise<T>,
): Promise<T> {
  const { db } = deps.database;
  await check(deps, given, 0);
  const rows = given.map(({ subject }) => ({ id: v7(), subject, at: deps.now() }));
  await db.insert(signInFailures).values(rows);
  const forget = () =>
    db.delete(signInFailures).where(
      inArray(
        signInFailures.id,
        rows.map((row) => row.id),
      ),
    );
  let result: T;
  try {
    await check(deps, given, 1);
    result = await work();
  } catch (error) {
    if (!(error instanceof Problem && failures.includes(error.code))) await forget();
    throw error;
  }
  await forget();
  const forgiven = given.filter((limit) => limit.forgive).map((limit) => limit.subject);
  if (forgiven.length > 0) await db.delete(signInFailures).where(inArray(signInFailures.subject, forgiven));
  return result;
}

/** Forgets failures that no longer count; called by the sweep. */
export async function forgetOldFailures({ database, now }: Deps): Promise<void> {
  await database.db.delete(signInFailures).where(lt(signInFailures.at, new Date(now().getTime() - windowMs)));
}
