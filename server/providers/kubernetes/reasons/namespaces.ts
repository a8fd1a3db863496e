import type { KubeObject } from '../api/client.ts';

/** What keeps a namespace from ending, in Kubernetes' words; empty when nothing does. */
export function describeStuckNamespace(namespace: KubeObject): string {
  const { conditions = [] } = (namespace.status ?? {}) as {
    conditions?: { type: string; status: string; message?: string }[];
  };
  const said = (type: string) =>
    conditions.find((one) => one.type === type && one.status === 'True')?.message;
  const message =
    said('NamespaceFinalizersRemaining') ??
    said('NamespaceContentRemaining') ??
    said('NamespaceDeletionContentFailure') ??
    said('NamespaceDeletionDiscoveryFailure');
  return message ? `: ${message.replace(/\.$/, '')}` : '';
}
