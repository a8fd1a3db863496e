import { getCluster, listClusters, listOrphans } from '@cde/api/clusters.ts';
import { queryOptions } from '@tanstack/react-query';
import { call } from '../client.ts';

// No event tells of clusters. The server looks every 5 s at those that are away.
const askEveryMs = 5_000;

/** All clusters, kept fresh while someone looks. */
export const clustersQuery = queryOptions({
  queryKey: ['clusters'],
  queryFn: async ({ signal }) => (await call(listClusters, { signal })).items,
  refetchInterval: askEveryMs,
});

/** What a cluster offers and lacks. The server asks the cluster some fifty things for it, so it is asked once. */
export const checksQuery = (cluster: string, state: string) =>
  queryOptions({
    // A cluster that comes or goes is checked anew.
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
