import type { Role } from '@cde/api/endpoint.ts';
import { getUser, type User } from '@cde/api/identity.ts';
import { queryOptions, useSuspenseQuery } from '@tanstack/react-query';
import { call } from './client.ts';

export const meQuery = queryOptions({
  queryKey: ['me'],
  queryFn: ({ signal }) => call(getUser, { params: { user: 'me' }, signal }),
  staleTime: 5 * 60_000,
});

/** The signed-in user. The layout's loader has fetched it before any page renders. */
export function useMe(): User {
  return useSuspenseQuery(meQuery).data;
}

// Only what to show: the server authorizes each request (server/identity/auth/authorize.ts).
export const seesAllWorkspaces = (role: Role) => role !== 'member';
export const seesUsers = (role: Role) => role === 'owner' || role === 'auditor';
export const managesUsers = (role: Role) => role === 'owner';
export const seesAudit = (role: Role) => role === 'owner' || role === 'auditor';
export const operates = (me: User, owner: string) => me.role === 'owner' || me.username === owner;
/** Whether the user can move a workspace of `owner` to another template version. Undefined: a server of an earlier release. */
export const updates = (me: User, owner: string) => me.username === owner || me.canUpdateForeign !== false;
export const connects = (me: User, owner: string) => me.username === owner;
/** Whether the user can create workspaces for `owner`. */
export const createsFor = (me: User, owner: string) => me.role === 'owner' || me.username === owner;
export const seesClusters = (role: Role) => role !== 'member';
export const managesClusters = (role: Role) => role === 'owner';
export const seesSatellites = (role: Role) => role !== 'member';
/** Others reach the page too, and see their own sessions there. */
export const seesNetwork = (role: Role) => role === 'owner' || role === 'auditor';
export const seesHealth = (role: Role) => role !== 'member';
export const seesCleanup = (role: Role) => role !== 'member';
export const managesCleanup = (role: Role) => role === 'owner';
export const managesSatellites = (role: Role) => role === 'owner';
