import { Problem } from '@cde/api/problem.ts';
import { and, eq } from 'drizzle-orm';
import { type Database, isDuplicate, type Queryable } from '../database/pool.ts';
import { oidcIdentities, users } from '../database/schema.ts';
import { type SystemCaller, writeAudit } from './audit.ts';
import { makeUsername, numbered } from './usernames.ts';
import { insertUser, type UserRow } from './users.ts';

/** What the provider says of a person, checked. */
export interface OidcClaims {
  issuer: string;
  subject: string;
  username: string | null;
  name: string | null;
  email: string | null;
  emailVerified: boolean;
}

/** How often a username that another sign-in took at the same moment is chosen anew. */
const attempts = 5;

/**
 * The user that (issuer, subject) belongs to. Somebody unknown is linked to the user who has their
 * verified address, or becomes a new member; each with its audit row.
 */
export async function userOfClaims(
  { db }: Database,
  claims: OidcClaims,
  { requestId, now }: { requestId: string; now: Date },
): Promise<UserRow> {
  const caller: SystemCaller = { actor: { kind: 'system' }, requestId, ip: null };
  for (let attempt = 1; ; attempt++) {
    try {
      return await db.transaction(async (tx) => {
        const known = await userOfSubject(tx, claims);
        if (known) return known;
        const sameEmail = claims.emailVerified && claims.email ? await userOfEmail(tx, claims.email) : null;
        // An address passes from one employee to another; the account of who is linked already does not.
        const isFree = sameEmail !== null && !(await isLinked(tx, sameEmail.id, claims.issuer));
        const user =
          sameEmail && isFree
            ? sameEmail
            : await insertUser(tx, caller, {
                username: await freeUsername(tx, claims),
                name: claims.name?.slice(0, 120) ?? '',
                email: claims.emailVerified && !sameEmail ? claims.email : null,
                role: 'member',
                createdAt: now,
              });
        await tx
          .insert(oidcIdentities)
          .values({ issuer: claims.issuer, subject: claims.subject, userId: user.id, createdAt: now });
        await writeAudit(tx, caller, {
          action: 'user.link-oidc',
          targetType: 'user',
          targetId: user.id,
          targetName: user.username,
          after: { issuer: claims.issuer, subject: claims.subject },
        });
        return user;
      });
    } catch (error) {
      // The same person in two tabs, or two people of one name, at the same moment: look again.
      const isRace =
        isDuplicate(error) ||
        (error instanceof Problem && (error.code === 'username-taken' || error.code === 'email-taken'));
      if (!isRace || attempt >= attempts) throw error;
    }
  }
}

async function userOfSubject(tx: Queryable, { issuer, subject }: OidcClaims): Promise<UserRow | null> {
  const [row] = await tx
    .select({ user: users })
    .from(oidcIdentities)
    .innerJoin(users, eq(users.id, oidcIdentities.userId))
    .where(and(eq(oidcIdentities.issuer, issuer), eq(oidcIdentities.subject, subject)));
  return row?.user ?? null;
}

async function userOfEmail(tx: Queryable, email: string): Promise<UserRow | null> {
  const [row] = await tx.select().from(users).where(eq(users.email, email.toLowerCase()));
  return row ?? null;
}

async function isLinked(tx: Queryable, userId: string, issuer: string): Promise<boolean> {
  return (
    (await tx.$count(
      oidcIdentities,
      and(eq(oidcIdentities.userId, userId), eq(oidcIdentities.issuer, issuer)),
    )) > 0
  );
}

async function freeUsername(tx: Queryable, claims: OidcClaims): Promise<string> {
  const made = [claims.username, claims.email, claims.name].map((text) => (text ? makeUsername(text) : null));
  for (const candidate of numbered(made.find((name) => name !== null) ?? 'user'))
    if ((await tx.$count(users, eq(users.username, candidate))) === 0) return candidate;
  throw new Error('unreachable: the candidates do not end');
}
