import { jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';
import type { Database } from '../database/pool.ts';
import type { UserActor } from '../http/actor.ts';
import { isAllowed } from '../identity/auth/authorize.ts';
import type { Keys } from '../identity/keys.ts';

/** Enough time to measure a few satellites and connect to one. */
const codeLifetimeMs = 60_000;
/** How long a terminal can stay open at a satellite before the browser needs a new code. */
const admissionLifetimeMs = 24 * 3600_000;

const Claims = z.object({ sid: z.uuid(), workspaceId: z.uuid(), satelliteId: z.uuid() });
/** A browser session, the workspace whose terminals it can open, and the satellite it can open them at. */
type TerminalClaims = z.infer<typeof Claims>;

/**
 * The two tokens that let a satellite serve a browser's terminals: the code that the browser hands to the satellite,
 * and the admission that the satellite exchanges it for. Neither identifies the user or grants anything by itself:
 * the browser session behind it is looked up on every use.
 */
export function makeAdmissions({
  database,
  keys,
  now,
}: {
  database: Database;
  keys: Pick<Keys, 'derive'>;
  now: () => Date;
}) {
  const key = keys.derive('terminal codes');
  async function sign(audience: string, claims: TerminalClaims, forMs: number) {
    const until = new Date(now().getTime() + forMs);
    const text = await new SignJWT({ ...claims })
      .setProtectedHeader({ alg: 'HS256' })
      .setAudience(audience)
      .setExpirationTime(until)
      .sign(key);
    return { text, until };
  }
  async function read(audience: string, text: string): Promise<TerminalClaims | null> {
    try {
      const { payload } = await jwtVerify(text, key, {
        algorithms: ['HS256'],
        audience,
        currentDate: now(),
      });
      return Claims.parse(payload);
    } catch {
      return null;
    }
  }
  return {
    signCode: (claims: TerminalClaims) => sign('cde-terminal-code', claims, codeLifetimeMs),
    /** Null if the code is not one of ours or is more than a minute old. */
    readCode: (text: string) => read('cde-terminal-code', text),
    sign: (claims: TerminalClaims) => sign('cde-terminal-admission', claims, admissionLifetimeMs),
    read: (text: string) => read('cde-terminal-admission', text),

    /** The user behind each claim, in order; null if the session has ended or the user cannot connect to the workspace. */
    async authorizedUsers(asked: readonly TerminalClaims[]): Promise<(UserActor | null)[]> {
      const found: (UserActor | null)[] = asked.map(() => null);
      if (asked.length === 0) return found;
      const { rows } = await database.pool.query<{
        at: number;
        id: string;
        username: string;
        role: UserActor['role'];
        owner: string;
      }>(
        `SELECT asked.at::int - 1 AS at, users.id, users.username, users.role, workspaces.owner_id AS owner
           FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS asked (session, workspace, at)
           JOIN browser_sessions ON browser_sessions.id = asked.session AND browser_sessions.expires_at > $3
           JOIN users ON users.id = browser_sessions.user_id AND users.status = 'active'
           JOIN workspaces ON workspaces.id = asked.workspace AND workspaces.status <> 'deleted'`,
        [asked.map(({ sid }) => sid), asked.map(({ workspaceId }) => workspaceId), now()],
      );
      for (const { at, id, username, role, owner } of rows) {
        const actor: UserActor = {
          kind: 'user',
          userId: id,
          username,
          role,
          scopes: ['all'],
          via: { kind: 'cookie', id: asked[at]!.sid },
        };
        if (isAllowed(actor, 'workspace:connect', { ownerId: owner })) found[at] = actor;
      }
      return found;
    },
  };
}
