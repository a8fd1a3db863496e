import type { StepContext } from '../../provider.ts';
import { type KubeClient, KubeError, type KubeRef } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { hasCondition, type Kube, type KubeObject } from '../api/models.ts';
import { annotations } from '../api/names.ts';
import { ignoreConflict } from './apply.ts';
import type { ScaledWorkload } from './state.ts';

const scalableKinds = [
  { apiVersion: 'apps/v1', kind: 'StatefulSet' },
  { apiVersion: 'apps/v1', kind: 'Deployment' },
  { apiVersion: 'apps/v1', kind: 'ReplicaSet' },
] as const;
const suspendableKinds = [
  { apiVersion: 'batch/v1', kind: 'CronJob' },
  { apiVersion: 'batch/v1', kind: 'Job' },
] as const;
const scalableKindNames: ReadonlySet<string> = new Set(scalableKinds.map(({ kind }) => kind));

type AnyObject = Pick<KubeObject, 'apiVersion' | 'kind' | 'metadata'>;

const ownerOf = (object: AnyObject) =>
  object.metadata.ownerReferences?.find(({ controller }) => controller) ?? null;
const refOf = ({ apiVersion, kind, metadata: { name, namespace } }: AnyObject): KubeRef => ({
  apiVersion,
  kind,
  name,
  ...(namespace && { namespace }),
});

/** An object that was listed may have been deleted since. */
async function patchIfThere(client: KubeClient, ref: KubeRef, patch: object): Promise<void> {
  await client.patch(ref, patch).catch((error) => {
    if (!(error instanceof KubeError) || error.status !== 404) throw error;
  });
}

/**
 * Scales every workload of a namespace to zero, including the developer's own, and annotates each with its size.
 * Returns them, with those that an interrupted attempt scaled before. The workspace's StatefulSet is scaled but not
 * returned: its size is always one.
 */
export async function scaleDown(client: KubeClient, namespace: string): Promise<ScaledWorkload[]> {
  const found: ScaledWorkload[] = [];
  for (const kind of scalableKinds)
    for (const object of await client.list({ ...kind, namespace })) {
      // The Deployment scales its ReplicaSets.
      if (scalableKindNames.has(ownerOf(object)?.kind ?? '')) continue;
      const own = object.kind === 'StatefulSet' && object.metadata.name === 'workspace';
      const replicas = object.spec?.replicas ?? 1;
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
      const suspend = object.spec?.suspend ?? false;
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

const hasEnded = (job: Kube<'Job' | 'CronJob'>) =>
  job.kind === 'Job' && (hasCondition(job, 'Complete') || hasCondition(job, 'Failed'));

/** Restores the size of every workload before the stop. Workloads that were at zero stay there. */
export async function scaleUp(client: KubeClient, workloads: readonly ScaledWorkload[]): Promise<void> {
  for (const { ref, size } of workloads)
    await patchIfThere(client, ref, {
      metadata: { annotations: { [annotations.size]: null } },
      spec: size === 'running' ? { suspend: false } : { replicas: size },
    });
}

/** Prevents new pods in the namespace. */
export async function closeQuota(client: KubeClient, namespace: string): Promise<void> {
  const ref = { apiVersion: 'v1', kind: 'ResourceQuota', namespace, name: 'cde' };
  await patchIfThere(client, ref, { spec: { hard: { pods: '0' } } });
}

/** Whether the pod of the workspace was made for the build. */
export const isOfBuild = ({ metadata }: Kube<'Pod'>, buildId: string): boolean =>
  metadata.annotations?.[annotations.build] === buildId;

/** Deletes the pod of the workspace if it matches and is not already terminating. */
export async function removePod(
  { client, view }: Pick<Connection, 'client' | 'view'>,
  namespace: string,
  matches: (pod: Kube<'Pod'>) => boolean,
): Promise<void> {
  const pod = view.get('Pod', namespace, 'workspace-0');
  if (!pod || pod.metadata.deletionTimestamp || !matches(pod)) return;
  const { name, uid } = pod.metadata;
  // By uid: the StatefulSet may already have created the new one under the same name.
  await client
    .remove({ apiVersion: 'v1', kind: 'Pod', namespace, name }, { ...(uid && { uid }) })
    .catch(ignoreConflict);
}

/** How long after its grace period a pod still exists before its node is considered lost. */
const forceDeleteAfterMs = 60_000;

/** Force-deletes a pod whose grace period is long over: its node is unreachable, and nothing else would remove it. */
export async function forceDelete(
  client: KubeClient,
  { metadata: { name, namespace, uid, deletionTimestamp } }: Kube<'Pod'>,
  now: Date,
  context: StepContext,
): Promise<void> {
  // The timestamp is the end of its grace period.
  if (!deletionTimestamp || now.getTime() - Date.parse(deletionTimestamp) < forceDeleteAfterMs) return;
  context.log(
    `the pod ${name} does not terminate because its node is unreachable; it is force-deleted`,
    'warn',
  );
  await client.remove(
    { apiVersion: 'v1', kind: 'Pod', name, ...(namespace && { namespace }) },
    { graceSeconds: 0, ...(uid && { uid }) },
  );
}

/**
 * Deletes the remaining pods of a namespace that have no controller (with `all`, every pod), and force-deletes those on
 * lost nodes. Returns how many still exist, and the controllers of those that are not terminating: `DaemonSet logs`.
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
    const phase = pod.status?.phase;
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
    if (!owner) context.log(`the pod ${name} has no controller that could restart it; it is deleted`, 'warn');
    await client.remove({ apiVersion: 'v1', kind: 'Pod', namespace, name }, { ...(uid && { uid }) });
  }
  return { left, alive: [...alive].sort() };
}
