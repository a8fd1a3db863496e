import { oidcFailures } from '@cde/api/identity.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, eq } from 'drizzle-orm';
import { type Database, isDuplicate, type Queryable } from '../../database/pool.ts';
import { oidcIdentities, users } from '../../database/schema.ts';
import { type SystemCaller, writeAudit } from '../audit/audit.ts';
import { normalizeEmail } from '../users/emails.ts';
import { makeUsername, usernameCandidates } from '../users/usernames.ts';
import { insertUser, type UserRow } from '../users/users.ts';

/** Verified claims of the provider about a person. */
export interface OidcClaims {
  issuer: string;
  subject: string;
  username: string | null;
  name: string | null;
  email: string | null;
  emailVerified: boolean;
}

/** How often to retry when a concurrent sign-in took the same username. */
const maxAttempts = 5;

interface Context {
  requestId: string;
  now: Date;
  /** The account to link the identity to, or null for a sign-in. */
  linkUserId: string | null;
}

/**
 * Finds the user with this (issuer, subject). An unknown identity is linked to the user with its verified address, or
 * becomes a new member; both write an audit row. Throws `oidc-failed` if the identity must not be linked.
 */
export async function resolveOidcUser(
  { db }: Database,
  claims: OidcClaims,
  context: Context,
): Promise<UserRow> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await db.transaction((tx) => findOrLink(tx, claims, context));
    } catch (error) {
      // The same person in two tabs, or two people with the same name, signed in concurrently: try again.
      const isRace =
        isDuplicate(error) ||
        (error instanceof Problem && (error.code === 'username-taken' || error.code === 'email-taken'));
      if (!isRace || attempt >= maxAttempts) throw error;
    }
  }
}

async function findOrLink(
  tx: Queryable,
  claims: OidcClaims,
  { requestId, now, linkUserId }: Context,
): Promise<UserRow> {
  const caller: SystemCaller = { actor: { kind: 'system' }, requestId, ip: null };
  const known = await userOfSubject(tx, claims);
  if (known && linkUserId !== null && known.id !== linkUserId)
    throw new Problem('oidc-failed', oidcFailures['linked-elsewhere'], { detail: 'linked-elsewhere' });
  if (known) return known;
  const user =
    linkUserId === null
      ? ((await linkableByEmail(tx, claims)) ?? (await newMember(tx, caller, claims, now)))
      : await userById(tx, linkUserId);
  await tx
    .insert(oidcIdentities)
    .values({ issuer: claims.issuer, subject: claims.subject, userId: user.id, createdAt: now });
  await writeAudit(tx, caller, {
    action: 'user.link-oidc',
    targetType: 'user',
    targetId: user.id,
    targetName: user.username,
    after: {
      issuer: claims.issuer,
      subject: claims.subject,
      by: linkUserId === null ? 'address' : 'themselves',
    },
  });
  return user;
}

/**
 * The user with the verified address, unless they already have an identity: addresses are reassigned to other people, so a
 * linked account is found only by issuer and subject. Throws if that user is an owner, because an address alone is too
 * weak a proof for an owner's account.
 */
async function linkableByEmail(tx: Queryable, claims: OidcClaims): Promise<UserRow | null> {
  const user = await userOfEmail(tx, verifiedEmail(claims));
  if (!user || (await isLinked(tx, user.id))) return null;
  if (user.role === 'owner')
    throw new Problem('oidc-failed', oidcFailures['owner-not-linked'], { detail: 'owner-not-linked' });
  return user;
}

async function newMember(
  tx: Queryable,
  caller: SystemCaller,
  claims: OidcClaims,
  now: Date,
): Promise<UserRow> {
  const email = verifiedEmail(claims);
  return insertUser(tx, caller, {
    username: await freeUsername(tx, claims),
    name: claims.name?.slice(0, 120) ?? '',
    email: (await userOfEmail(tx, email)) === null ? email : null,
    role: 'member',
    createdAt: now,
  });
}

/** Null if the address is unverified or has no canonical form. */
const verifiedEmail = ({ email, emailVerified }: OidcClaims): string | null =>
  emailVerified && email !== null ? normalizeEmail(email) : null;

async function userById(tx: Queryable, id: string): Promise<UserRow> {
  const [row] = await tx.select().from(users).where(eq(users.id, id));
  if (!row) throw new Problem('oidc-failed', oidcFailures.expired, { detail: 'expired' });
  return row;
}

async function userOfSubject(tx: Queryable, { issuer, subject }: OidcClaims): Promise<UserRow | null> {
  const [row] = await tx
    .select({ user: users })
    .from(oidcIdentities)
    .innerJoin(users, eq(users.id, oidcIdentities.userId))
    .where(and(eq(oidcIdentities.issuer, issuer), eq(oidcIdentities.subject, subject)));
  return row?.user ?? null;
}

async function userOfEmail(tx: Queryable, email: string | null): Promise<UserRow | null> {
  if (email === null) return null;
  const [row] = await tx.select().from(users).where(eq(users.email, email));
  return row ?? null;
}

async function isLinked(tx: Queryable, userId: string): Promise<boolean> {
  return (await tx.$count(oidcIdentities, eq(oidcIdentities.userId, userId))) > 0;
}

async function freeUsername(tx: Queryable, claims: OidcClaims): Promise<string> {
  const made = [claims.username, claims.email, claims.name].map((text) => (text ? makeUsername(text) : null));
  for (const candidate of usernameCandidates(made.find((name) => name !== null) ?? 'user'))
    if ((await tx.$count(users, eq(users.username, candidate))) === 0) return candidate;
  throw new Error('unreachable: the candidates do not end');
}
