import { Problem } from '@cde/api/problem.ts';
import { eq } from 'drizzle-orm';
import type { Database } from '../../database/pool.ts';
import { users } from '../../database/schema.ts';
import type { FailureAudit } from '../audit/failure-audit.ts';
import { type NewSession, type SignInRequest, startSession } from '../sessions/sessions.ts';
import { lowerAscii, normalizeEmail } from '../users/emails.ts';
import type { UserRow } from '../users/users.ts';
import { userLimit, withAttemptLimit } from './attempt-limit.ts';
import type { Devices } from './devices.ts';
import { hashPassword, needsRehash, verifyPassword } from './passwords.ts';
import { hashUsername, type SignInThrottle, signInBuckets } from './sign-in-throttle.ts';

interface Deps {
  database: Database;
  now: () => Date;
}

export interface SignInDeps extends Deps {
  pace: SignInThrottle;
  devices: Devices;
  failures: FailureAudit;
}

/**
 * Signs in with a username (or email address) and a password. Throws `sign-in-failed` for a wrong user and a wrong
 * password alike, `sign-in-throttled`, and `user-suspended` if the password is right.
 */
export async function signInWithPassword(
  deps: SignInDeps,
  given: { username: string; password: string; devices: string[] },
  request: SignInRequest,
  session: { now: Date; sessionDays: number },
): Promise<{ user: UserRow } & NewSession> {
  const { db } = deps.database;
  const typed = given.username.trim();
  // An address without a canonical form belongs to no user.
  const name = typed.includes('@') ? (normalizeEmail(typed) ?? typed) : lowerAscii(typed);
  const [user] = await db
    .select()
    .from(users)
    .where(eq(name.includes('@') ? users.email : users.username, name));
  const device = user ? deps.devices.find(given.devices, user.id) : null;
  const attempt = deps.pace.throttle(
    signInBuckets(name, request.ip, device),
    ['sign-in-failed'],
    async () => {
      if (!(await verifyPassword(user?.passwordHash ?? null, given.password)) || !user?.passwordHash)
        throw new Problem('sign-in-failed', 'The username or the password is wrong.', {
          hint: 'If you have no password, use single sign-on or a one-time link.',
        });
      const renewed = needsRehash(user.passwordHash) ? await hashPassword(given.password) : null;
      return db.transaction(async (tx) => {
        const made = await startSession(tx, user, 'password', request, session);
        if (renewed) await tx.update(users).set({ passwordHash: renewed }).where(eq(users.id, user.id));
        return { user, ...made };
      });
    },
  );
  return attempt.catch(async (error) => {
    if (error instanceof Problem && (error.code === 'sign-in-failed' || error.code === 'sign-in-throttled'))
      await deps.failures.record({
        action: error.code === 'sign-in-failed' ? 'sign-in.fail' : 'sign-in.throttle',
        how: 'password',
        user: user ?? null,
        name: hashUsername(name),
        ip: request.ip,
        requestId: request.requestId,
      });
    throw error;
  });
}

/**
 * Checks a user's current password (unless there is none) and returns the hash of the new one. Throws `password-wrong`,
 * `sign-in-throttled`.
 */
export async function changeOwnPassword(
  deps: Deps,
  user: UserRow,
  given: { current?: string | undefined; password: string },
): Promise<string> {
  if (user.passwordHash !== null) {
    const { current } = given;
    if (current === undefined) throw new Problem('password-wrong', 'Enter your current password too.');
    await withAttemptLimit(deps, userLimit('password', user.id), ['password-wrong'], async () => {
      if (!(await verifyPassword(user.passwordHash, current)))
        throw new Problem('password-wrong', 'That is not your current password.', {
          hint: 'If you forgot it, ask an owner to set a new one.',
        });
    });
  }
  return hashPassword(given.password);
}
