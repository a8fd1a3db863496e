import type { StepContext } from '../../provider.ts';
import { type KubeClient, KubeError, type KubeObject, type KubeRef } from '../api/client.ts';
import { annotations } from '../api/names.ts';
import type { ScaledWorkload } from './state.ts';

/** What has a size, and what can be suspended instead. */
const scalableKinds = [
  { apiVersion: 'apps/v1', kind: 'StatefulSet' },
  { apiVersion: 'apps/v1', kind: 'Deployment' },
  { apiVersion: 'apps/v1', kind: 'ReplicaSet' },
];
const suspendableKinds = [
  { apiVersion: 'batch/v1', kind: 'CronJob' },
  { apiVersion: 'batch/v1', kind: 'Job' },
];
const scalableKindNames = new Set(scalableKinds.map(({ kind }) => kind));

const ownerOf = (object: KubeObject) =>
  object.metadata.ownerReferences?.find(({ controller }) => controller) ?? null;
const refOf = ({ apiVersion, kind, metadata: { name, namespace } }: KubeObject): KubeRef => ({
  apiVersion,
  kind,
  name,
  ...(namespace && { namespace }),
});

/** Somebody may delete what we have just listed. */
async function patchIfThere(client: KubeClient, ref: KubeRef, patch: object): Promise<void> {
  await client.patch(ref, patch).catch((error) => {
    if (!(error instanceof KubeError) || error.status !== 404) throw error;
  });
}

/**
 * Scales every workload of a namespace to nothing, the developer's own too, and writes on each what it was.
 * Returns these, and those that an attempt cut short has scaled before. Not the workspace's own StatefulSet: its
 * size is always one.
 */
export async function scaleDown(client: KubeClient, namespace: string): Promise<ScaledWorkload[]> {
  const found: ScaledWorkload[] = [];
  for (const kind of scalableKinds)
    for (const object of await client.list({ ...kind, namespace })) {
      // A Deployment's ReplicaSet follows the Deployment.
      if (scalableKindNames.has(ownerOf(object)?.kind ?? '')) continue;
      const own = object.kind === 'StatefulSet' && object.metadata.name === 'workspace';
      const replicas = (object.spec as { replicas?: number }).replicas ?? 1;
      const before = object.metadata.annotations?.[annotations.size];
      const size = replicas > 0 ? replicas : Number(before ?? 0);
      if (size > 0 && !own) found.push({ ref: refOf(object), size });
      if (replicas > 0)
        await patchIfThere(client, refOf(object), {
          ...(!own && { metadata: { annotations: { [annotations.size]: String(replicas) } } }),
          spec: { replicas: 0 },
        });
    }
  for (const kind of suspendableKinds)
    for (const object of await client.list({ ...kind, namespace })) {
      const { suspend = false } = object.spec as { suspend?: boolean };
      if (!suspend && !hasEnded(object)) {
        found.push({ ref: refOf(object), size: 'running' });
        await patchIfThere(client, refOf(object), {
          metadata: { annotations: { [annotations.size]: 'running' } },
          spec: { suspend: true },
        });
      } else if (suspend && object.metadata.annotations?.[annotations.size])
        found.push({ ref: refOf(object), size: 'running' });
    }
  return found;
}

const hasEnded = (job: KubeObject) =>
  ((job.status ?? {}) as { conditions?: { type: string; status: string }[] }).conditions?.some(
    ({ type, status }) => ['Complete', 'Failed'].includes(type) && status === 'True',
  ) ?? false;

/** Gives every workload the size that it had before the stop. What was at nothing then stays so. */
export async function scaleUp(client: KubeClient, workloads: readonly ScaledWorkload[]): Promise<void> {
  for (const { ref, size } of workloads)
    await patchIfThere(client, ref, {
      metadata: { annotations: { [annotations.size]: null } },
      spec: size === 'running' ? { suspend: false } : { replicas: size },
    });
}

/** From now on nothing can make a pod in the namespace. */
export async function closeQuota(client: KubeClient, namespace: string): Promise<void> {
  const ref = { apiVersion: 'v1', kind: 'ResourceQuota', namespace, name: 'cde' };
  await patchIfThere(client, ref, { spec: { hard: { pods: '0' } } });
}

/** How long after its grace a pod may hang before it counts as on a node that is lost. */
const forceDeleteAfterMs = 60_000;

/** Takes a pod off the books that should have ended long ago: its node does not answer, and nothing else would do it. */
export async function forceDelete(
  client: KubeClient,
  { metadata: { name, namespace, uid, deletionTimestamp } }: KubeObject,
  now: Date,
  context: StepContext,
): Promise<void> {
  // The timestamp is the moment at which its grace is over.
  if (!deletionTimestamp || now.getTime() - Date.parse(deletionTimestamp) < forceDeleteAfterMs) return;
  context.log(`the pod ${name} does not end: its node does not answer. It is struck off.`, 'warn');
  await client.remove(
    { apiVersion: 'v1', kind: 'Pod', name, ...(namespace && { namespace }) },
    { graceSeconds: 0, ...(uid && { uid }) },
  );
}

/**
 * Ends what is left of a namespace's pods: those that nothing would bring back are deleted (with `all` the others
 * too), those that hang on a lost node are struck off. Returns how many are still there, and of those that nobody
 * ends yet what each belongs to: `DaemonSet logs`.
 */
export async function deletePods(
  client: KubeClient,
  namespace: string,
  now: Date,
  context: StepContext,
  { all = false } = {},
): Promise<{ left: number; alive: string[] }> {
  let left = 0;
  const alive = new Set<string>();
  for (const pod of await client.list({ apiVersion: 'v1', kind: 'Pod', namespace })) {
    const { phase } = (pod.status ?? {}) as { phase?: string };
    const { name, uid, deletionTimestamp } = pod.metadata;
    if (deletionTimestamp) {
      left++;
      await forceDelete(client, pod, now, context);
      continue;
    }
    if (phase === 'Succeeded' || phase === 'Failed') continue;
    left++;
    const owner = ownerOf(pod);
    if (owner && !all) {
      alive.add(`${owner.kind} ${owner.name}`);
      continue;
    }
    if (!owner)
      context.log(`the pod ${name} belongs to nothing that could start it again; it is deleted`, 'warn');
    await client.remove({ apiVersion: 'v1', kind: 'Pod', namespace, name }, { ...(uid && { uid }) });
  }
  return { left, alive: [...alive].sort() };
}
