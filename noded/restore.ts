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

/** A node is some 10 KB. */
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
 * Takes all profiles back: empties the ConfigMap, and waits until each node has put its kernel back and says
 * nothing of profiles any more. Rejects when some have not within the time; nodes that are away are named and not
 * waited for: a node that boots anew has nothing of ours.
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
  say(`No profile is asked for any more (ConfigMap ${namespace}/${configMap}).`);
  const until = performance.now() + seconds * 1000;
  for (;;) {
    const left = (await listNodes(cluster)).filter(speaks);
    const waiting = left.filter((node) => !away(node)).map(({ metadata }) => metadata.name);
    if (waiting.length === 0) {
      for (const node of left) say(`The node ${node.metadata.name} is away: it was not waited for.`);
      say('The kernels of all nodes are as they were.');
      return;
    }
    if (performance.now() > until)
      throw new Error(
        `These nodes did not put their kernels back within ${seconds} s: ${waiting.join(', ')}. ` +
          'Their annotation cde.dev/kernel-profiles and the log of noded there tell why.',
      );
    await new Promise((resolve) => setTimeout(resolve, 3_000));
  }
}
