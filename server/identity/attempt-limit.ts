import { type ErrorCode, Problem } from '@cde/api/problem.ts';
import { and, desc, eq, gt, inArray, lt } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database } from '../database/pool.ts';
import { signInFailures } from '../database/schema.ts';

const minute = 60_000;
/** Failures older than this no longer count. */
export const windowMs = 15 * minute;

/** Failures of one signed-in user within the window, at their own current password or at CLI codes, after which the next is refused. */
export const maxFailures = 10;

interface Deps {
  database: Database;
  now: () => Date;
}

interface Limit {
  subject: string;
  max: number;
  /** Success clears it. */
  clearOnSuccess?: boolean;
}

/** The limit of a signed-in user's guesses at `what`. */
export const userLimit = (what: 'password' | 'cli-code', userId: string): Limit[] => [
  { subject: `${what}:${userId}`, max: maxFailures, clearOnSuccess: what === 'password' },
];

const recent = (subject: string, now: Date) =>
  and(eq(signInFailures.subject, subject), gt(signInFailures.at, new Date(now.getTime() - windowMs)));

/** Throws `sign-in-throttled`, with the seconds until the oldest failure that counts is forgotten. */
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
 * Runs one guess under `given` limits. A guess is counted before it is judged, so that a thousand at the
 * same moment do not all pass; it stops counting unless `work` fails with one of `failures`. A refused
 * attempt does not count, so that refusals end on time.
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

/** Forgets failures that no longer count; called by the sweep. */
export async function deleteOldFailures({ database, now }: Deps): Promise<void> {
  await database.db.delete(signInFailures).where(lt(signInFailures.at, new Date(now().getTime() - windowMs)));
}
