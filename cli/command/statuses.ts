import type { roles as ApiRoles } from '@cde/api/endpoint.ts';
import type { scopes as ApiScopes } from '@cde/api/identity.ts';
import type { workspaceStatuses as ApiStatuses } from '@cde/api/workspaces.ts';

// The contract's lists, again without its schemas (see endpoints.ts): the compiler holds them equal.
export const workspaceStatuses: typeof ApiStatuses = [
  'pending',
  'starting',
  'running',
  'stopping',
  'stopped',
  'failed',
  'deleting',
  'deleted',
];
export const roles: typeof ApiRoles = ['owner', 'template-admin', 'auditor', 'member'];
export const scopes: typeof ApiScopes = ['all', 'read', 'connect'];
