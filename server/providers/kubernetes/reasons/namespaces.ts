import type { Kube } from '../api/models.ts';

/** What blocks the deletion of a namespace, in Kubernetes' words; empty if nothing is reported. */
export function describeStuckNamespace({ status }: Kube<'Namespace'>): string {
  const said = (type: string) =>
    status?.conditions?.find((one) => one.type === type && one.status === 'True')?.message;
  const message =
    said('NamespaceFinalizersRemaining') ??
    said('NamespaceContentRemaining') ??
    said('NamespaceDeletionContentFailure') ??
    said('NamespaceDeletionDiscoveryFailure');
  return message ? `: ${message.replace(/\.$/, '')}` : '';
}
