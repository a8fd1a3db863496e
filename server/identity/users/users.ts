import { dayMs } from '@cde/api/durations.ts';
import type { Role } from '@cde/api/endpoint.ts';
import type { User } from '@cde/api/identity.ts';
import { usernamePattern } from '@cde/api/names.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, asc, count, eq, gt, ilike, max, ne, or, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import { type Database, isDuplicate, type Queryable } from '../../database/pool.ts';
import { users, workspaces } from '../../database/schema.ts';
import type { Caller, UserActor } from '../../http/actor.ts';
import { escapeLike, fromCursor, isUuid, toPage } from '../../http/cursor.ts';
import { type SystemCaller, writeAudit } from '../audit/audit.ts';
import { revokeAccess } from '../sessions/sessions.ts';
import { normalizeEmail } from './emails.ts';
import { findReservation, makeUsername, reservationReason } from './usernames.ts';

export type UserRow = typeof users.$inferSelect;

/** A user as the API returns it. */
export function toUser(row: UserRow): User {
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

/** Finds a user by `ref`: a username, an id, or `me`. */
export async function findUser(db: Queryable, ref: string, actor?: UserActor): Promise<UserRow | null> {
  const [row] = await db
    .select()
    .from(users)
    .where(
      ref === 'me' && actor
        ? eq(users.id, actor.userId)
        : isUuid(ref)
          ? eq(users.id, ref)
          : eq(users.username, ref),
    );
  return row ?? null;
}

export const userNotFound = (ref: string): Problem =>
  new Problem('user-not-found', `There is no user ${ref}.`, { actions: [{ kind: 'list-users' }] });

/** A page of users by username. `only` is the one id that the caller can see, if not all. */
export async function listUsers(
  { db }: Database,
  query: {
    limit: number;
    after?: string | undefined;
    search?: string | undefined;
    only?: string | undefined;
  },
): Promise<{ items: User[]; next: string | null }> {
  const pattern = query.search === undefined ? undefined : `%${escapeLike(query.search)}%`;
  const rows = await db
    .select()
    .from(users)
    .where(
      and(
        query.only === undefined ? undefined : eq(users.id, query.only),
        pattern === undefined
          ? undefined
          : or(ilike(users.username, pattern), ilike(users.name, pattern), ilike(users.email, pattern)),
        query.after === undefined
          ? undefined
          : gt(
              users.username,
              fromCursor(query.after, (key) => usernamePattern.test(key)),
            ),
      ),
    )
    .orderBy(asc(users.username))
    .limit(query.limit + 1);
  return toPage(rows, query.limit, (row) => row.username, toUser);
}

const auditFields = (row: UserRow) => ({
  username: row.username,
  name: row.name,
  email: row.email,
  role: row.role,
  status: row.status,
});

function storedEmail(email: string | null): string | null {
  if (email === null) return null;
  const stored = normalizeEmail(email);
  if (stored === null)
    throw new Problem('bad-request', `${email} cannot be used as an email address.`, {
      detail: 'The part before the @ must be ASCII, and the domain a valid DNS name.',
    });
  return stored;
}

/** Inserts a user and its audit row. Throws `username-taken`, `email-taken`, or `bad-request` for a reserved name. */
export async function insertUser(
  tx: Queryable,
  caller: Caller | SystemCaller,
  values: {
    username: string;
    name?: string;
    email?: string | null;
    role: Role;
    passwordHash?: string | null;
    createdAt: Date;
  },
): Promise<UserRow> {
  const reservation = findReservation(values.username);
  if (reservation)
    throw new Problem(
      'bad-request',
      `The username ${values.username} is reserved: ${reservationReason(reservation)}.`,
      { hint: 'Choose another one.' },
    );
  const email = storedEmail(values.email ?? null);
  try {
    const [row] = await tx
      .insert(users)
      .values({ ...values, id: v7(), email })
      .returning();
    await writeAudit(tx, caller, {
      action: 'user.create',
      targetType: 'user',
      targetId: row!.id,
      targetName: row!.username,
      after: { ...auditFields(row!), password: Boolean(values.passwordHash) },
    });
    return row!;
  } catch (error) {
    throw toDuplicateProblem(error, values.username, email);
  }
}

function toDuplicateProblem(error: unknown, username: string, email: string | null): unknown {
  if (isDuplicate(error, 'users_username_key'))
    return new Problem('username-taken', `There is already a user ${username}.`, {
      hint: 'Choose another username.',
    });
  if (isDuplicate(error, 'users_email_key'))
    return new Problem('email-taken', `Another user already has the address ${email}.`, {
      hint: 'Each address can belong to only one user.',
    });
  return error;
}

/**
 * Updates a user and writes its audit row in one transaction. A suspension ends the user's sessions.
 * Throws `user-not-found`, `last-owner`, `email-taken`.
 */
export async function updateUser(
  { db }: Database,
  caller: Caller<UserActor>,
  ref: string,
  changes: {
    role?: Role | undefined;
    status?: 'active' | 'suspended' | undefined;
    name?: string | undefined;
    email?: string | null | undefined;
  },
): Promise<UserRow> {
  return db.transaction(async (tx) => {
    const before = await lockUser(tx, ref, caller.actor);
    const after = {
      role: changes.role ?? before.role,
      status: changes.status ?? before.status,
      name: changes.name ?? before.name,
      email: changes.email === undefined ? before.email : storedEmail(changes.email),
    };
    if (after.role !== 'owner' || after.status !== 'active') await ensureOwnerRemains(tx, before);
    const changed = (Object.keys(after) as (keyof typeof after)[]).filter(
      (key) => after[key] !== before[key],
    );
    if (changed.length === 0) return before;
    let row: UserRow | undefined;
    try {
      [row] = await tx.update(users).set(after).where(eq(users.id, before.id)).returning();
    } catch (error) {
      throw toDuplicateProblem(error, before.username, after.email);
    }
    if (before.status === 'active' && after.status === 'suspended') await revokeAccess(tx, before.id);
    const pick = (from: typeof after) => Object.fromEntries(changed.map((key) => [key, from[key]]));
    await writeAudit(tx, caller, {
      action: 'user.update',
      targetType: 'user',
      targetId: before.id,
      targetName: before.username,
      before: pick(before),
      after: pick(after),
    });
    return row!;
  });
}

/** Sets a password hash and ends all sessions, one-time links and pending CLI logins of the user. */
export async function replacePassword(
  tx: Queryable,
  caller: Caller,
  user: UserRow,
  passwordHash: string,
): Promise<void> {
  await tx.update(users).set({ passwordHash }).where(eq(users.id, user.id));
  await revokeAccess(tx, user.id);
  await writeAudit(tx, caller, {
    action: 'user.set-password',
    targetType: 'user',
    targetId: user.id,
    targetName: user.username,
    before: { password: user.passwordHash !== null },
    after: { password: true },
  });
}

/**
 * Deletes a user with their sessions and tokens, and returns their id. Throws `user-not-found`, `last-owner`, and
 * `user-has-workspaces` (also while the home of a deleted workspace is retained for `homeGraceDays`).
 */
export async function deleteUser(
  { db }: Database,
  caller: Caller<UserActor>,
  ref: string,
  { homeGraceDays, now }: { homeGraceDays: number; now: Date },
): Promise<string> {
  return db.transaction(async (tx) => {
    const user = await lockUser(tx, ref, caller.actor);
    await ensureOwnerRemains(tx, user);
    const ownedByUser = eq(workspaces.ownerId, user.id);
    const alive = await tx.$count(workspaces, and(ownedByUser, ne(workspaces.status, 'deleted')));
    if (alive > 0)
      throw new Problem(
        'user-has-workspaces',
        `${user.username} has ${alive === 1 ? 'a workspace' : `${alive} workspaces`}.`,
        { hint: 'Delete the workspaces first, or suspend the user instead.' },
      );
    const [retained] = await tx
      .select({ count: count(), last: max(workspaces.deletedAt) })
      .from(workspaces)
      .where(ownedByUser);
    const until = new Date((retained?.last?.getTime() ?? 0) + homeGraceDays * dayMs);
    if (retained && retained.count > 0 && until > now)
      throw new Problem(
        'user-has-workspaces',
        `The homes of ${user.username}'s deleted workspaces are still retained.`,
        {
          detail: `The last one is retained until ${until.toISOString().slice(0, 16)}Z.`,
          hint: 'Delete the user after that, or suspend the user now.',
        },
      );
    await tx.delete(workspaces).where(ownedByUser);
    await tx.delete(users).where(eq(users.id, user.id));
    await writeAudit(tx, caller, {
      action: 'user.delete',
      targetType: 'user',
      targetId: user.id,
      targetName: user.username,
      before: auditFields(user),
    });
    return user.id;
  });
}

async function lockUser(tx: Queryable, ref: string, actor: UserActor): Promise<UserRow> {
  const found = await findUser(tx, ref, actor);
  if (!found) throw userNotFound(ref);
  // Lock all owners first, ordered by id, so that two owners who remove each other do not deadlock.
  if (found.role === 'owner')
    await tx
      .select({ id: users.id })
      .from(users)
      .where(eq(users.role, 'owner'))
      .orderBy(asc(users.id))
      .for('update');
  const [row] = await tx.select().from(users).where(eq(users.id, found.id)).for('update');
  if (!row) throw userNotFound(ref);
  return row;
}

/** Throws `last-owner` if `user` is the only active owner. Call it with the owners' rows locked. */
async function ensureOwnerRemains(tx: Queryable, user: UserRow): Promise<void> {
  if (user.role !== 'owner' || user.status !== 'active') return;
  const others = await tx.$count(
    users,
    and(eq(users.role, 'owner'), eq(users.status, 'active'), ne(users.id, user.id)),
  );
  if (others === 0)
    throw new Problem('last-owner', `${user.username} is the last active owner.`, {
      detail: 'Without an owner, no one could manage this installation.',
      hint: 'Make another user an owner first.',
    });
}

const fallbackOwner = 'owner';

/**
 * Creates the first owner if there are no users; concurrent replicas create only one. `username` is converted to a valid
 * one. The owner has no password and signs in by a one-time link. If there are users already, returns the oldest active
 * owner.
 */
export async function ensureOwner(
  { db }: Database,
  { username, now }: { username: string; now: () => Date },
): Promise<{ created: boolean; user: User }> {
  return db.transaction(async (tx) => {
    await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtext('cde first owner'))`);
    const [owner] = await tx
      .select()
      .from(users)
      .where(and(eq(users.role, 'owner'), eq(users.status, 'active')))
      .orderBy(asc(users.id))
      .limit(1);
    if (owner) return { created: false, user: toUser(owner) };
    // The API cannot leave users without an active owner, so report it instead of silently adding one.
    if ((await tx.$count(users)) > 0)
      throw new Error(
        "The database has users but no active owner. Name one: UPDATE users SET role = 'owner', status = 'active' WHERE username = '…'",
      );
    const row = await insertUser(
      tx,
      { actor: { kind: 'system' }, requestId: 'first-start', ip: null },
      { username: makeUsername(username) ?? fallbackOwner, role: 'owner', createdAt: now() },
    );
    return { created: true, user: toUser(row) };
  });
}
