import { getCluster, listClusters, listOrphans } from '@cde/api/clusters.ts';
import { queryOptions } from '@tanstack/react-query';
import { call } from '../client.ts';

// There are no events for clusters. The server checks unreachable ones every 5 s.
const askEveryMs = 5_000;

/** All clusters, refreshed while shown. */
export const clustersQuery = queryOptions({
  queryKey: ['clusters'],
  queryFn: async ({ signal }) => (await call(listClusters, { signal })).items,
  refetchInterval: askEveryMs,
});

/** The checks of a cluster. They cost about fifty requests to the cluster, so they are cached. */
export const checksQuery = (cluster: string, state: string) =>
  queryOptions({
    // Check again when the cluster becomes reachable or unreachable.
    queryKey: ['cluster-checks', cluster, state],
    queryFn: async ({ signal }) => (await call(getCluster, { params: { cluster }, signal })).checks,
    staleTime: 60_000,
  });

export const orphansQuery = (cluster: string, state: string) =>
  queryOptions({
    queryKey: ['orphans', cluster, state],
    queryFn: ({ signal }) => call(listOrphans, { query: { cluster }, signal }),
    staleTime: 60_000,
  });
