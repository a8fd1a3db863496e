import { CoreV1Api, KubeConfig, PatchStrategy, setHeaderOptions, type V1Node } from '@kubernetes/client-node';
import type { NodeEvent, NodePatch, NodeView } from './report.ts';

/** The one node that this noded is for, in the cluster's API. */
export interface KubeNode {
  get(): Promise<NodeView>;
  patch(patch: NodePatch): Promise<NodeView>;
  event(node: NodeView, event: NodeEvent): Promise<void>;
}

/** A call that gets no answer must not stand in the way of the next. */
const callMs = 10_000;

/** Rejects when there is no answer within some seconds. */
export async function soon<T>(call: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer of the cluster within ${callMs / 1000} s`)), callMs);
  });
  try {
    return await Promise.race([call, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The API as a pod reaches it or, outside of one, as KUBECONFIG says. */
export function connect(): CoreV1Api {
  const config = new KubeConfig();
  config.loadFromDefault();
  return config.makeApiClient(CoreV1Api);
}

const view = ({ metadata }: V1Node): NodeView => ({
  uid: metadata?.uid ?? '',
  labels: metadata?.labels ?? {},
  annotations: metadata?.annotations ?? {},
});

export function makeKubeNode(core: CoreV1Api, name: string): KubeNode {
  return {
    get: async () => view(await soon(core.readNode({ name }))),
    patch: async (metadata) =>
      view(
        await soon(
          core.patchNode(
            { name, body: { metadata }, fieldManager: 'cde-noded' },
            setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
          ),
        ),
      ),
    async event(node, { type, reason, message }) {
      const now = new Date();
      await soon(
        core.createNamespacedEvent({
          // Where Kubernetes wants events about what is in no namespace.
          namespace: 'default',
          body: {
            metadata: { generateName: 'cde-noded-', namespace: 'default' },
            involvedObject: { apiVersion: 'v1', kind: 'Node', name, uid: node.uid },
            type,
            reason,
            message: message.slice(0, 1000),
            source: { component: 'cde-noded', host: name },
            firstTimestamp: now,
            lastTimestamp: now,
            count: 1,
          },
        }),
      );
    },
  };
}
