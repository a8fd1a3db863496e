import { type KubeClient, KubeError } from '../api/client.ts';
import type { NodeView } from '../api/node-view.ts';

/** The labels by which clouds and autoscalers name the pool of a node, most specific first. */
const poolLabels = [
  'karpenter.sh/nodepool',
  'cloud.google.com/gke-nodepool',
  'eks.amazonaws.com/nodegroup',
  'kubernetes.azure.com/agentpool',
  'doks.digitalocean.com/node-pool',
];

/** The pool of a node. `label`: one of the installation's own, which wins. */
export function nodePoolOf(
  labels: Record<string, string> | undefined,
  label: string | undefined,
): string | null {
  for (const name of label === undefined ? poolLabels : [label, ...poolLabels]) {
    const pool = labels?.[name];
    if (pool) return pool;
  }
  return null;
}

/** Null if it has none, or cannot be read: a report is not worth a failed start. */
export async function readNodePool(
  { client, nodes }: { client: Pick<KubeClient, 'get'>; nodes: Pick<NodeView, 'get'> },
  node: string | undefined,
  label: string | undefined,
): Promise<string | null> {
  if (node === undefined) return null;
  try {
    // The watch may not know a node yet that was added for this pod.
    const found = nodes.get(node) ?? (await client.get({ apiVersion: 'v1', kind: 'Node', name: node }));
    return nodePoolOf(found?.metadata.labels, label);
  } catch (error) {
    if (error instanceof KubeError) return null;
    throw error;
  }
}
