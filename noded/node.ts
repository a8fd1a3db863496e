import type { Cluster } from './cluster.ts';
import type { NodeEvent, NodePatch, NodeView } from './report.ts';

/** The node that this noded runs on, in the cluster's API. */
export interface KubeNode {
  get(): Promise<NodeView>;
  patch(patch: NodePatch): Promise<NodeView>;
  event(node: NodeView, event: NodeEvent): Promise<void>;
}

const manager = 'fieldManager=cde-noded';
const view = (node: unknown): NodeView => {
  const { metadata } = node as { metadata: Partial<NodeView> };
  return {
    uid: metadata.uid ?? '',
    labels: metadata.labels ?? {},
    annotations: metadata.annotations ?? {},
  };
};

export function makeKubeNode(cluster: Cluster, name: string): KubeNode {
  const path = `/api/v1/nodes/${encodeURIComponent(name)}`;
  return {
    get: async () => view(await cluster.get(path)),
    patch: async (metadata) => view(await cluster.patch(`${path}?${manager}`, { metadata })),
    async event({ uid }, { type, reason, message }) {
      const now = new Date().toISOString();
      // The namespace that Kubernetes uses for events about objects without one.
      await cluster.post(`/api/v1/namespaces/default/events?${manager}`, {
        metadata: { generateName: 'cde-noded-', namespace: 'default' },
        involvedObject: { apiVersion: 'v1', kind: 'Node', name, uid },
        type,
        reason,
        message: message.slice(0, 1000),
        source: { component: 'cde-noded', host: name },
        firstTimestamp: now,
        lastTimestamp: now,
        count: 1,
      });
    },
  };
}
