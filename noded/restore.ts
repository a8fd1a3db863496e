import type { Cluster } from './cluster.ts';
import { annotationKey, labelPrefix } from './report.ts';

interface ListedNode {
  metadata: { name: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  status?: { conditions?: { type: string; status: string }[] };
}
const speaks = ({ metadata }: ListedNode) =>
  metadata.annotations?.[annotationKey] !== undefined ||
  Object.keys(metadata.labels ?? {}).some((key) => key.startsWith(labelPrefix));
const away = ({ status }: ListedNode) =>
  status?.conditions?.find(({ type }) => type === 'Ready')?.status !== 'True';

/** A node is about 10 KB. */
const pageSize = 200;
async function listNodes(cluster: Cluster): Promise<ListedNode[]> {
  const nodes: ListedNode[] = [];
  let more = '';
  do {
    const query = new URLSearchParams({ limit: String(pageSize), ...(more && { continue: more }) });
    const page = (await cluster.get(`/api/v1/nodes?${query}`)) as {
      items: ListedNode[];
      metadata: { continue?: string };
    };
    nodes.push(...page.items);
    more = page.metadata.continue ?? '';
  } while (more);
  return nodes;
}

/**
 * Removes all profiles: empties the ConfigMap, and waits until each node has restored its kernel and reports no profile.
 * Rejects if some have not done so in time. Nodes that are not ready are reported and skipped: after a reboot they have none of
 * our values.
 */
export async function restore({
  cluster,
  namespace,
  configMap,
  seconds,
  say,
}: {
  cluster: Cluster;
  namespace: string;
  configMap: string;
  seconds: number;
  say: (line: string) => void;
}): Promise<void> {
  await cluster.patch(`/api/v1/namespaces/${namespace}/configmaps/${configMap}`, {
    data: { 'profiles.yaml': 'profiles: {}\n' },
  });
  say(`All profiles are removed (ConfigMap ${namespace}/${configMap}).`);
  const until = performance.now() + seconds * 1000;
  for (;;) {
    const left = (await listNodes(cluster)).filter(speaks);
    const waiting = left.filter((node) => !away(node)).map(({ metadata }) => metadata.name);
    if (waiting.length === 0) {
      for (const node of left) say(`The node ${node.metadata.name} is not ready and was skipped.`);
      say('The kernels of all nodes are restored.');
      return;
    }
    if (performance.now() > until)
      throw new Error(
        `These nodes did not restore their kernels within ${seconds} s: ${waiting.join(', ')}. ` +
          'Their annotation cde.dev/kernel-profiles and the log of noded there say why.',
      );
    await new Promise((resolve) => setTimeout(resolve, 3_000));
  }
}
