import type { KubeClient, KubeError } from './client.ts';
import type { Kube } from './models.ts';
import { startReflector } from './reflector.ts';

export type KubeNode = Kube<'Node'>;

/** The nodes of one cluster, as its watch has seen them. */
export interface NodeView {
  /** True once they were listed. */
  readonly synced: boolean;
  /** Why they cannot be read; null: they can. A server without this permission still runs workspaces. */
  readonly reason: string | null;
  all(): Iterable<KubeNode>;
  get(name: string): KubeNode | undefined;
  /** Calls back after a node was added or changed; `before` is null for one that was not known. */
  onChange(listener: (node: KubeNode, before: KubeNode | null) => void): void;
}

/** The kernel profiles of a node, as JSON from noded. */
export const kernelProfilesAnnotation = 'cde.dev/kernel-profiles';

/** Drops what nobody reads: the list of images is most of a node's size. */
function trim(node: KubeNode): KubeNode {
  const { name, uid, resourceVersion, labels, annotations, creationTimestamp } = node.metadata;
  const report = annotations?.[kernelProfilesAnnotation];
  const { conditions, capacity, allocatable, nodeInfo } = node.status ?? {};
  return {
    apiVersion: node.apiVersion,
    kind: 'Node',
    metadata: {
      name,
      ...(uid && { uid }),
      ...(resourceVersion && { resourceVersion }),
      ...(creationTimestamp && { creationTimestamp }),
      ...(labels && { labels }),
      ...(report !== undefined && { annotations: { [kernelProfilesAnnotation]: report } }),
    },
    spec: { ...(node.spec?.unschedulable && { unschedulable: true }) },
    status: {
      ...(conditions && { conditions }),
      ...(capacity && { capacity }),
      ...(allocatable && { allocatable }),
      ...(nodeInfo && { nodeInfo }),
    },
  };
}

/** One watch for all nodes. A kubelet reports every five minutes if nothing happens, so it is quiet. */
export function makeNodeView(
  client: Pick<KubeClient, 'listFrom' | 'watch'>,
): NodeView & { stop(): void; relist(): void } {
  let nodes = new Map<string, KubeNode>();
  let synced = false;
  let reason: string | null = null;
  const listeners: ((node: KubeNode, before: KubeNode | null) => void)[] = [];
  const notify = (node: KubeNode, before: KubeNode | null) => {
    for (const listener of listeners) listener(node, before);
  };
  const describe = (error: KubeError) =>
    error.status === 403 ? `The server is not allowed to read nodes: ${error.message}` : error.message;

  const reflector = startReflector(
    client,
    { apiVersion: 'v1', kind: 'Node' },
    {
      onList(listed) {
        const before = nodes;
        nodes = new Map(listed.map((node) => [node.metadata.name, trim(node)]));
        synced = true;
        for (const [name, node] of nodes) {
          const known = before.get(name) ?? null;
          if (known?.metadata.resourceVersion !== node.metadata.resourceVersion) notify(node, known);
        }
      },
      onObject(type, object) {
        const { name } = object.metadata;
        if (type === 'DELETED') return void nodes.delete(name);
        const before = nodes.get(name) ?? null;
        const node = trim(object);
        nodes.set(name, node);
        notify(node, before);
      },
      onState(error) {
        reason = error && describe(error);
      },
    },
  );
  return {
    get synced() {
      return synced;
    },
    get reason() {
      return reason;
    },
    all: () => nodes.values(),
    get: (name) => nodes.get(name),
    onChange: (listener) => void listeners.push(listener),
    relist: reflector.relist,
    stop: reflector.stop,
  };
}
