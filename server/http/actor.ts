import type { Permission, Role } from '@cde/api/endpoint.ts';
import type { Scope } from '@cde/api/identity.ts';

/** Who makes a request, as authenticated by server/identity. */
export type Actor =
  | { kind: 'anonymous' }
  | {
      kind: 'user';
      userId: string;
      username: string;
      role: Role;
      scopes: Scope[];
      /** The browser session or token that sign-out ends. */
      via: { kind: 'cookie' | 'token'; id: string };
    }
  | { kind: 'agent'; workspaceId: string; buildId: string }
  | { kind: 'satellite'; satelliteId: string; name: string };

export type UserActor = Extract<Actor, { kind: 'user' }>;
export type AgentActor = Extract<Actor, { kind: 'agent' }>;

/** The part of a request that stores and the audit log need. */
export interface Caller<A extends Actor = Actor> {
  actor: A;
  requestId: string;
  ip: string;
}

/** What HTTP needs from identity. Declared here so that http does not import identity. Every method throws a Problem. */
export interface Auth {
  /** Reads the Authorization header, or the cookie with its session key. Includes the CSRF check. */
  authenticate(
    headers: Record<string, string | string[] | undefined>,
    request: { method: string; ip: string },
  ): Promise<Actor>;
  /**
   * The ids of the browser sessions that this cookie belongs to. A cookie alone does not authenticate, because browsers
   * send it to every port of the host. Use this only to confirm a user who is already authenticated.
   */
  findSessionsByCookie(cookie: string | undefined): Promise<string[]>;
  /** Without `target`, checks that the actor has the permission at all, at least on their own resources. */
  authorize(actor: Actor, permission: Permission, target?: { ownerId: string }): void;
  /** Runs `work` once per (user, key). A repeated request gets the first reply. */
  runIdempotent(
    actor: UserActor,
    key: string,
    fingerprint: string,
    work: () => Promise<{ status: number; body: unknown }>,
  ): Promise<{ status: number; body: unknown; replayed: boolean }>;
}
