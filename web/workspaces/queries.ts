import {
  getWorkspace,
  getWorkspaceStats,
  listBuilds,
  listWorkspaces,
  type Workspace,
} from '@cde/api/workspaces.ts';
import { queryOptions } from '@tanstack/react-query';
import { call } from '../client.ts';
import { pagedQuery } from '../paging.ts';

/** How the API's paths name a workspace: `owner~name`. */
export const refOf = (workspace: { owner: string; name: string }) => `${workspace.owner}~${workspace.name}`;

export interface ListFilter {
  search: string;
  owner: string;
  archived: boolean;
}

export const workspacesQuery = (filter: ListFilter) =>
  pagedQuery(['workspaces', filter], (page, signal) =>
    call(listWorkspaces, {
      query: {
        ...page,
        ...(filter.search && { search: filter.search }),
        ...(filter.owner && { owner: filter.owner }),
        ...(filter.archived && { archived: 'only' as const }),
      },
      signal,
    }),
  );

export const workspaceQuery = (ref: string) =>
  queryOptions<Workspace>({
    queryKey: ['workspace', ref],
    queryFn: ({ signal }) => call(getWorkspace, { params: { workspace: ref }, signal }),
  });

// A workspace has a few builds a day; the last hundred reach back far enough to compare.
const buildsShown = 100;

export const buildsQuery = (workspaceId: string) =>
  queryOptions({
    queryKey: ['builds', workspaceId],
    queryFn: async ({ signal }) =>
      (await call(listBuilds, { params: { workspace: workspaceId }, query: { limit: buildsShown }, signal }))
        .items,
  });

export const statsQuery = (workspaceId: string) =>
  queryOptions({
    queryKey: ['stats', workspaceId],
    queryFn: async ({ signal }) =>
      (await call(getWorkspaceStats, { params: { workspace: workspaceId }, signal })).stats,
  });
