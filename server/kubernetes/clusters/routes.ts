import * as api from '@cde/api/clusters.ts';
import type { FastifyInstance } from 'fastify';
import { serve } from '../../http/serve.ts';
import type { Connections } from '../../providers/kubernetes/api/connections.ts';
import { checkCluster } from './checks.ts';
import type { ClusterStore } from './store.ts';

export interface ClusterRouteDeps {
  store: ClusterStore;
  connections: Connections;
}

export function clusterRoutes(app: FastifyInstance, { store, connections }: ClusterRouteDeps): void {
  serve(app, api.listClusters, async () => ({ items: await store.list() }));

  serve(app, api.getCluster, async ({ params }) => {
    const cluster = await store.show(params.cluster);
    const connection = connections.get(cluster.name);
    return {
      ...cluster,
      checks: connection
        ? await checkCluster(connection)
        : [{ name: 'connection', ok: false, message: 'This server has not connected to it yet.' }],
    };
  });

  serve(app, api.addCluster, async (input) => {
    const { name, ...settings } = input.body;
    const cluster = await store.add(input, name, settings);
    await connections.refresh();
    return cluster;
  });

  serve(app, api.updateCluster, async (input) => {
    const cluster = await store.change(input, input.params.cluster, input.body);
    await connections.refresh();
    return cluster;
  });

  serve(app, api.removeCluster, async (input) => {
    await store.remove(input, input.params.cluster);
    await connections.refresh();
  });
}
