import { type ErrorCode, Problem } from '@cde/api/problem.ts';
import { and, desc, eq, gt, inArray, lt } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database } from '../../database/pool.ts';
import { signInFailures } from '../../database/schema.ts';

const minute = 60_000;
/** Failures older than this no longer count. */
export const windowMs = 15 * minute;

/** Failed guesses of a signed-in user at their own password or at CLI codes within the window before the next is rejected. */
export const maxFailures = 10;

interface Deps {
  database: Database;
  now: () => Date;
}

interface Limit {
  subject: string;
  max: number;
  /** Whether a success clears the failures. */
  clearOnSuccess?: boolean;
}

/** The limit on a signed-in user's guesses at `what`. */
export const userLimit = (what: 'password' | 'cli-code', userId: string): Limit[] => [
  { subject: `${what}:${userId}`, max: maxFailures, clearOnSuccess: what === 'password' },
];

const recent = (subject: string, now: Date) =>
  and(eq(signInFailures.subject, subject), gt(signInFailures.at, new Date(now.getTime() - windowMs)));

/** Throws `sign-in-throttled`, with the seconds until the oldest counted failure leaves the window. */
async function check({ database, now }: Deps, given: Limit[], own: number): Promise<void> {
  for (const { subject, max } of given) {
    const rows = await database.db
      .select({ at: signInFailures.at })
      .from(signInFailures)
      .where(recent(subject, now()))
      .orderBy(desc(signInFailures.at))
      .limit(max + own);
    if (rows.length < max + own) continue;
    const free = rows[max - 1 + own]!.at.getTime() + windowMs - now().getTime();
    throw new Problem('sign-in-throttled', 'Too many failed attempts.', {
      detail: `At most ${max} within ${windowMs / minute} minutes.`,
      hint: 'Wait, or sign in another way: single sign-on, or a one-time link.',
      retryAfter: Math.max(1, Math.ceil(free / 1000)),
    });
  }
}

/**
 * Runs one guess under the given limits. A guess is counted before it is checked, so that a thousand concurrent ones do
 * not all pass, and uncounted unless `work` fails with one of `failures`. Rejected attempts do not count, so that the
 * limit does not extend itself.
 */
export async function withAttemptLimit<T>(
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
  const clearable = given.filter((limit) => limit.clearOnSuccess).map((limit) => limit.subject);
  if (clearable.length > 0) await db.delete(signInFailures).where(inArray(signInFailures.subject, clearable));
  return result;
}

/** Deletes failures outside the window; called by the sweep. */
export async function deleteOldFailures({ database, now }: Deps): Promise<void> {
  await database.db.delete(signInFailures).where(lt(signInFailures.at, new Date(now().getTime() - windowMs)));
}
