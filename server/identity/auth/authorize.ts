import type { Permission, Role } from '@cde/api/endpoint.ts';
import type { Scope } from '@cde/api/identity.ts';
import { Problem } from '@cde/api/problem.ts';
import type { Actor } from '../../http/actor.ts';

type Grant = 'any' | 'own';
type GrantablePermission = Exclude<Permission, 'public' | 'signed-in' | 'agent' | 'satellite'>;

/** The permissions of each role. Anything not listed is denied. docs/roles.md shows this as a table. */
export const grants: Record<Role, Partial<Record<GrantablePermission, Grant>>> = {
  owner: {
    'workspace:create': 'any',
    'workspace:read': 'any',
    'workspace:operate': 'any',
    // Not even an owner can connect to another user's workspace.
    'workspace:connect': 'own',
    'workspace:delete': 'any',
    'template:read': 'any',
    'template:write': 'any',
    'cluster:read': 'any',
    'cluster:write': 'any',
    'satellite:read': 'any',
    'satellite:write': 'any',
    'user:read': 'any',
    'user:write': 'any',
    'token:own': 'own',
    'audit:read': 'any',
    'metrics:read': 'any',
    'cleanup:read': 'any',
    'cleanup:write': 'any',
    'session:read': 'any',
    'health:read': 'any',
  },
  'template-admin': {
    'workspace:create': 'own',
    'workspace:read': 'any',
    'workspace:operate': 'own',
    'workspace:connect': 'own',
    'workspace:delete': 'own',
    'template:read': 'any',
    'template:write': 'any',
    'cluster:read': 'any',
    'satellite:read': 'any',
    'user:read': 'own',
    'token:own': 'own',
    'cleanup:read': 'any',
    'session:read': 'own',
    'health:read': 'any',
  },
  auditor: {
    'workspace:create': 'own',
    'workspace:read': 'any',
    'workspace:operate': 'own',
    'workspace:connect': 'own',
    'workspace:delete': 'own',
    'template:read': 'any',
    'cluster:read': 'any',
    'satellite:read': 'any',
    'user:read': 'any',
    'token:own': 'own',
    'audit:read': 'any',
    'metrics:read': 'any',
    'cleanup:read': 'any',
    'session:read': 'any',
    'health:read': 'any',
  },
  member: {
    'workspace:create': 'own',
    'workspace:read': 'own',
    'workspace:operate': 'own',
    'workspace:connect': 'own',
    'workspace:delete': 'own',
    'template:read': 'any',
    'user:read': 'own',
    'token:own': 'own',
    'session:read': 'own',
  },
};

/** The permissions that a token's scope is limited to. `all` is absent because it restricts nothing. */
const scopePermissions: Record<Exclude<Scope, 'all'>, Permission[]> = {
  read: [
    'public',
    'workspace:read',
    'template:read',
    'cluster:read',
    'satellite:read',
    'user:read',
    'audit:read',
    'metrics:read',
    'cleanup:read',
    'session:read',
    'health:read',
  ],
  connect: ['public', 'workspace:read', 'workspace:connect', 'template:read', 'user:read'],
};

/** Whether the actor has the permission on any resource, on their own, or not at all. */
export function grantFor(actor: Actor, permission: Permission): Grant | null {
  if (permission === 'public') return 'any';
  if (actor.kind === 'agent' || actor.kind === 'satellite') return permission === actor.kind ? 'own' : null;
  if (actor.kind !== 'user' || permission === 'agent' || permission === 'satellite') return null;
  if (permission === 'signed-in') return 'own';
  return grants[actor.role][permission] ?? null;
}

/** Whether the actor has the permission, on the target if one is given. */
export function isAllowed(actor: Actor, permission: Permission, target?: { ownerId: string }): boolean {
  const grant = grantFor(actor, permission);
  if (grant === null) return false;
  if (actor.kind === 'user' && !inScope(actor.scopes, permission)) return false;
  if (grant === 'any' || target === undefined) return true;
  return actor.kind === 'user' && actor.userId === target.ownerId;
}

function inScope(scopes: Scope[], permission: Permission): boolean {
  return scopes.some((scope) => scope === 'all' || scopePermissions[scope].includes(permission));
}

/** `, which the roles owner and auditor have. Yours is member.` */
function whoHas(permission: Permission, role: Role): string {
  const isOwn = (grants[role] as Partial<Record<Permission, Grant>>)[permission] === 'own';
  const holders = (Object.keys(grants) as Role[]).filter(
    (each) => (grants[each] as Partial<Record<Permission, Grant>>)[permission] === 'any',
  );
  const yours = isOwn ? `Yours, ${role}, has it only for what is your own.` : `Yours is ${role}.`;
  if (holders.length === 0) return `, which no role has here. ${yours}`;
  const last = holders.at(-1)!;
  const names =
    holders.length === 1 ? `role ${last} has` : `roles ${holders.slice(0, -1).join(', ')} and ${last} have`;
  return `, which the ${names}${isOwn ? ' here' : ''}. ${yours}`;
}

/** Throws a Problem unless the actor has the permission: not signed in, token scope too small, or not permitted. */
export function authorize(actor: Actor, permission: Permission, target?: { ownerId: string }): void {
  if (isAllowed(actor, permission, target)) return;
  if (actor.kind === 'anonymous')
    throw new Problem('sign-in-required', 'You are not signed in.', {
      actions: [{ kind: 'sign-in' }],
    });
  if (actor.kind === 'user' && grantFor(actor, permission) !== null && !inScope(actor.scopes, permission))
    throw new Problem(
      'scope-too-small',
      `This token's scope (${actor.scopes.join(', ')}) does not cover ${permission}.`,
      {
        hint: 'Create a token with a wider scope.',
        actions: [{ kind: 'create-token' }],
      },
    );
  throw new Problem('forbidden', 'You do not have permission to do this.', {
    detail:
      actor.kind === 'user'
        ? `This requires ${permission}${whoHas(permission, actor.role)}`
        : `This requires ${permission}.`,
    hint: 'Ask an owner of this installation.',
  });
}
