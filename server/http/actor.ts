import type { Permission, Role } from '@cde/api/endpoint.ts';
import type { Scope } from '@cde/api/identity.ts';

/** Who makes a request, as identity found out. */
export type Actor =
  | { kind: 'anonymous' }
  | {
      kind: 'user';
      userId: string;
      username: string;
      role: Role;
      scopes: Scope[];
      /** What to end at sign-out: the browser session or the token. */
      via: { kind: 'cookie' | 'token'; id: string };
    }
  | { kind: 'agent'; workspaceId: string; buildId: string }
  | { kind: 'satellite'; satelliteId: string; name: string };

export type UserActor = Extract<Actor, { kind: 'user' }>;
export type AgentActor = Extract<Actor, { kind: 'agent' }>;
export type SatelliteActor = Extract<Actor, { kind: 'satellite' }>;

/** The part of a request that the audit log and the stores want. */
export interface Caller<A extends Actor = Actor> {
  actor: A;
  requestId: string;
  ip: string;
}

/** What http asks of identity, so that it stands below it. Each throws a Problem. */
export interface Auth {
  /** From the Authorization header, or the cookie with its session key; CSRF is checked here. */
  authenticate(
    headers: Record<string, string | string[] | undefined>,
    request: { method: string; ip: string },
  ): Promise<Actor>;
  /**
   * The ids of the browser sessions whose cookie this is. A cookie authenticates nobody, as other ports of the host get it
   * too: only for a second check of what somebody has proven already.
   */
  findSessionsByCookie(cookie: string | undefined): Promise<string[]>;
  /** `ownerId`: whose the thing is. Without it, asks whether the actor may at all (on its own things at least). */
  authorize(actor: Actor, permission: Permission, target?: { ownerId: string }): void;
  /** Runs `work` once per (user, key): a repeated request gets the first one's reply. */
  runIdempotent(
    actor: UserActor,
    key: string,
    fingerprint: string,
    work: () => Promise<{ status: number; body: unknown }>,
  ): Promise<{ status: number; body: unknown; replayed: boolean }>;
}
