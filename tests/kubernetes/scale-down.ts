import type { Kube, KubeObject } from '@cde/server/providers/kubernetes/api/models.ts';
import type { TestCluster } from '@cde/server/providers/kubernetes/testing/cluster.ts';

/**
 * What keeps Cluster Autoscaler or Karpenter from removing a node, by their published rules, read from the objects of the
 * namespaces: https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md ("What types of pods can prevent
 * CA from removing a node?") and https://karpenter.sh/docs/concepts/disruption/ ("Controls"). Both are stricter than a drain.
 */
export async function scaleDownBlockers(
  cluster: TestCluster,
  namespaces: readonly string[],
): Promise<string[]> {
  const blockers: string[] = [];
  for (const namespace of namespaces) {
    const [pods, budgets, claims] = await Promise.all([
      cluster.list({ apiVersion: 'v1', kind: 'Pod', namespace }),
      cluster.list({ apiVersion: 'policy/v1', kind: 'PodDisruptionBudget', namespace }),
      cluster.list({ apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace }),
    ]);
    for (const pod of pods)
      blockers.push(...podBlockers(pod).map((why) => `${namespace}/${pod.metadata.name}: ${why}`));
    for (const { metadata } of budgets) blockers.push(`${namespace}/${metadata.name}: a PodDisruptionBudget`);
    // A claim is selected for a node while a pod that uses it is scheduled there.
    for (const claim of claims)
      if (isUsed(claim, pods)) blockers.push(`${namespace}: the claim ${claim.metadata.name} is in use`);
  }
  return blockers;
}

function podBlockers({ metadata, spec, status }: Kube<'Pod'>): string[] {
  if (status?.phase === 'Succeeded' || status?.phase === 'Failed') return [];
  const annotations = metadata.annotations ?? {};
  const owners = metadata.ownerReferences ?? [];
  if (owners.some(({ kind }) => kind === 'DaemonSet')) return [];
  const isSafe = annotations['cluster-autoscaler.kubernetes.io/safe-to-evict'] === 'true';
  const hasLocalStorage = (spec?.volumes ?? []).some(
    (volume) => volume.hostPath || (volume.emptyDir && volume.emptyDir.medium !== 'Memory'),
  );
  const reasons: string[] = [];
  if (annotations['cluster-autoscaler.kubernetes.io/safe-to-evict'] === 'false')
    reasons.push('not safe to evict');
  if (annotations['karpenter.sh/do-not-disrupt'] === 'true') reasons.push('do not disrupt');
  if (!isSafe && owners.length === 0) reasons.push('no controller');
  if (!isSafe && hasLocalStorage) reasons.push('local storage');
  // Without any of these it still occupies the node until it was moved.
  return reasons.length > 0 ? reasons : ['it runs'];
}

function isUsed(claim: KubeObject, pods: readonly Kube<'Pod'>[]): boolean {
  return pods.some(({ spec }) =>
    (spec?.volumes ?? []).some(
      ({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName === claim.metadata.name,
    ),
  );
}
