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

/** Where orphans are: on a cluster, or with a provider that has none. */
export type OrphanPlace = { cluster: string } | { provider: string };

export const orphansQuery = (place: OrphanPlace, state = '') =>
  queryOptions({
    queryKey: ['orphans', place, state],
    queryFn: ({ signal }) => call(listOrphans, { query: place, signal }),
    staleTime: 60_000,
  });

/** The orphans of all providers. */
export const allOrphansQuery = queryOptions({
  queryKey: ['orphans'],
  queryFn: ({ signal }) => call(listOrphans, { query: {}, signal }),
  staleTime: 60_000,
});
