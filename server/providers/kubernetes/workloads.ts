import type { MoveContext } from '../provider.ts';
import type { KubeClient, KubeObject } from './client.ts';
import { annotations } from './names.ts';

/** What has a size, and what can be suspended instead. */
const sized = [
  { apiVersion: 'apps/v1', kind: 'StatefulSet' },
  { apiVersion: 'apps/v1', kind: 'Deployment' },
  { apiVersion: 'apps/v1', kind: 'ReplicaSet' },
];
const suspended = [
  { apiVersion: 'batch/v1', kind: 'CronJob' },
  { apiVersion: 'batch/v1', kind: 'Job' },
];

const isOwned = (object: KubeObject) =>
  object.metadata.ownerReferences?.some(({ controller }) => controller) ?? false;
const refOf = ({ apiVersion, kind, metadata: { name, namespace } }: KubeObject) => ({
  apiVersion,
  kind,
  name,
  ...(namespace && { namespace }),
});

/** Scales every workload of a namespace to nothing, the developer's own too, and writes on each what it was. */
export async function scaleDown(client: KubeClient, namespace: string): Promise<void> {
  for (const kind of sized)
    for (const object of await client.list({ ...kind, namespace })) {
      const replicas = (object.spec as { replicas?: number }).replicas ?? 1;
      if (isOwned(object) || replicas === 0) continue;
      await client.patch(refOf(object), {
        metadata: { annotations: { [annotations.size]: String(replicas) } },
        spec: { replicas: 0 },
      });
    }
  for (const kind of suspended)
    for (const object of await client.list({ ...kind, namespace })) {
      const { suspend = false } = object.spec as { suspend?: boolean };
      const ended = (object.status as { completionTime?: string } | undefined)?.completionTime !== undefined;
      if (isOwned(object) || suspend || ended) continue;
      await client.patch(refOf(object), {
        metadata: { annotations: { [annotations.size]: 'running' } },
        spec: { suspend: true },
      });
    }
}

/** Gives every workload the size that it had before the stop. What was at nothing then stays so. */
export async function scaleUp(client: KubeClient, namespace: string): Promise<void> {
  for (const kind of [...sized, ...suspended])
    for (const object of await client.list({ ...kind, namespace })) {
      const size = object.metadata.annotations?.[annotations.size];
      if (size === undefined) continue;
      await client.patch(refOf(object), {
        metadata: { annotations: { [annotations.size]: null } },
        spec: size === 'running' ? { suspend: false } : { replicas: Number(size) },
      });
    }
}

/** How long after its grace a pod may hang before it counts as on a node that is lost. */
const lostMs = 60_000;

/** Takes a pod off the books that should have ended long ago: its node does not answer, and nothing else would do it. */
export async function strikeOff(
  client: KubeClient,
  { metadata: { name, namespace, uid, deletionTimestamp } }: KubeObject,
  now: Date,
  context: MoveContext,
): Promise<void> {
  // The timestamp is the moment at which its grace is over.
  if (!deletionTimestamp || now.getTime() - Date.parse(deletionTimestamp) < lostMs) return;
  context.log(`the pod ${name} does not end: its node does not answer. It is struck off.`, 'warn');
  await client.remove(
    { apiVersion: 'v1', kind: 'Pod', name, ...(namespace && { namespace }) },
    { graceSeconds: 0, ...(uid && { uid }) },
  );
}

/**
 * Ends what is left of a namespace's pods: those that nothing would bring back are deleted, those that hang on a
 * lost node are struck off. Returns how many are still there.
 */
export async function clearPods(
  client: KubeClient,
  namespace: string,
  now: Date,
  context: MoveContext,
): Promise<number> {
  let left = 0;
  for (const pod of await client.list({ apiVersion: 'v1', kind: 'Pod', namespace })) {
    const { phase } = (pod.status ?? {}) as { phase?: string };
    const { name, deletionTimestamp } = pod.metadata;
    if (deletionTimestamp) {
      left++;
      await strikeOff(client, pod, now, context);
      continue;
    }
    if (phase === 'Succeeded' || phase === 'Failed') continue;
    left++;
    if (isOwned(pod)) continue;
    context.log(`the pod ${name} belongs to nothing that could start it again; it is deleted`, 'warn');
    await client.remove({ apiVersion: 'v1', kind: 'Pod', namespace, name });
  }
  return left;
}
