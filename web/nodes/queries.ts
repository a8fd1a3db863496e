import { getNode, listNodes } from '@cde/api/nodes.ts';
import { infiniteQueryOptions, keepPreviousData, queryOptions } from '@tanstack/react-query';
import { call } from '../client.ts';

// There are no events for nodes. The server answers from memory.
const askEveryMs = 10_000;
const rowsAtOnce = 100;

export interface NodeFilter {
  cluster?: string | undefined;
  problems?: true | undefined;
  q?: string | undefined;
}

/** The nodes that match, page by page. */
export const nodesQuery = ({ cluster, problems, q }: NodeFilter) =>
  infiniteQueryOptions({
    queryKey: ['nodes', cluster, problems, q] as const,
    queryFn: ({ pageParam, signal }) =>
      call(listNodes, {
        query: {
          limit: rowsAtOnce,
          ...(pageParam && { after: pageParam }),
          ...(cluster !== undefined && { cluster }),
          ...(problems && { show: 'problems' as const }),
          ...(q !== undefined && { search: q }),
        },
        signal,
      }),
    initialPageParam: '',
    getNextPageParam: (page) => page.next,
    placeholderData: keepPreviousData,
    refetchInterval: askEveryMs,
  });

/** `ref`: `CLUSTER~NAME`, or `PROVIDER~NAME` for a host. */
export const nodeQuery = (ref: string) =>
  queryOptions({
    queryKey: ['node', ref],
    queryFn: ({ signal }) => call(getNode, { params: { node: ref }, signal }),
    refetchInterval: askEveryMs,
  });

/** The node of a workspace; null if it runs on none. */
export const nodeOfQuery = (workspaceId: string, status: string) =>
  queryOptions({
    queryKey: ['node-of', workspaceId, status],
    queryFn: async ({ signal }) => {
      const { items } = await call(listNodes, { query: { workspace: workspaceId, limit: 1 }, signal });
      return items[0] ?? null;
    },
    staleTime: 60_000,
  });

export const refOf = ({
  cluster,
  provider,
  name,
}: {
  cluster: string | null;
  provider: string;
  name: string;
}) => `${cluster ?? provider}~${name}`;
