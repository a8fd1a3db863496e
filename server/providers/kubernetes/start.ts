import { createHash } from 'node:crypto';
import type { KubernetesSection } from '@cde/api/templates.ts';
import type { AgentLaunch, Move, MoveContext, WorkspaceSpec } from '../provider.ts';
import { applyOne, prune, Refused, readCopies, refsOf } from './apply.ts';
import { KubeError, type KubeObject } from './client.ts';
import type { Connection } from './connections.ts';
import { freeHome, protectHome, volumeOfClaim } from './homes.ts';
import { annotations, labels, namespaceName } from './names.ts';
import { renderNamespace } from './namespace.ts';
import { homeOf } from './pod.ts';
import { explain } from './reasons.ts';
import { read, type State, write } from './state.ts';
import { scaleUp, strikeOff } from './workloads.ts';

/** The watches wake a build that waits; this is for what they miss. */
const lookAgainMs = 5_000;
/** A start that has not got on by then will not. */
const mostStartMs = 10 * 60_000;

export interface StartOptions {
  installation: string;
  agentImage: string;
  agentPullPolicy?: string;
  now: () => Date;
}

interface ContainerStatus {
  name: string;
  restartCount?: number;
  state?: { running?: object; waiting?: { reason?: string } };
}

export const hashOf = (value: unknown): string =>
  createHash('sha256')
    .update(JSON.stringify(value, (_key, each) => (isMap(each) ? sorted(each) : each)))
    .digest('base64url');
const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const sorted = (map: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));

export const workspaceContainer = (pod: KubeObject): ContainerStatus | undefined =>
  ((pod.status ?? {}) as { containerStatuses?: ContainerStatus[] }).containerStatuses?.find(
    ({ name }) => name === 'workspace',
  );

/** One move toward the pod of `launch.buildId` running. */
export async function startMove(
  connection: Connection,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  before: State,
  context: MoveContext,
  options: StartOptions,
): Promise<Move> {
  let state: State = { ...before, cluster: connection.record.name, home: homeOf(spec.owner) };
  try {
    if (state.applied !== launch.buildId) {
      const applied = await applyAll(connection, spec, launch, state, context, options);
      if ('waits' in applied) return wait(applied.state, applied.waits);
      state = applied.state;
    }
    return await look(connection, spec, launch, state, context, options);
  } catch (error) {
    if (error instanceof Refused) return { kind: 'failed', state: write(state), error: error.error };
    throw error;
  }

  function wait(now: State, why: string): Move {
    if (now.said !== why) context.log(why);
    return {
      kind: 'again',
      state: write({ ...now, said: why }),
      afterMs: lookAgainMs,
      ...(now.namespace && { place: { cluster: connection.record.name, namespace: now.namespace } }),
    };
  }
}

type Applied = { state: State } | { state: State; waits: string };

async function applyAll(
  connection: Connection,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  before: State,
  context: MoveContext,
  options: StartOptions,
): Promise<Applied> {
  const { client, view } = connection;
  const section = spec.template.kubernetes as KubernetesSection;
  const state: State = { ...before };
  const namespace = state.namespace ?? (await freeName(connection, spec));
  state.namespace = namespace;
  const there = view.get('Namespace', '', namespace);
  if (there?.metadata.deletionTimestamp)
    return { state, waits: `The namespace ${namespace} is still being deleted${stuck(there)}.` };

  // A home that is known and lost must never be replaced by an empty one in silence.
  const known = state.homeVolume ?? read(spec.restore?.state ?? {}).homeVolume;
  const claim = view.get('PersistentVolumeClaim', namespace, 'home');
  let homeVolume = null;
  if (spec.restore && !known && !state.homeVolume)
    throw new Refused({
      code: 'home-not-restorable',
      message: 'Nothing is known of the volume of the home that was to be restored.',
      hint: 'An administrator can look for volumes with the label cde.dev/home=kept.',
      fault: 'system',
    });
  if (known) {
    const home = await freeHome(client, known, namespace);
    if (home === null)
      throw new Refused({
        code: 'home-lost',
        message: `The volume of the home (${known}) is gone from the cluster ${connection.record.name}.`,
        detail: 'It was not deleted by us. No empty home is put in its place.',
        hint: 'Restore the volume from a backup under the same name, or delete the workspace with its home.',
        fault: 'system',
      });
    if (home === 'in-use')
      return { state, waits: `The volume of the home (${known}) is still claimed in another namespace.` };
    if (claim && volumeOfClaim(claim) === null && (claim.status as { phase?: string })?.phase === 'Lost')
      await client.remove({ apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name: 'home' });
    homeVolume = home;
    state.homeVolume = known;
  }

  // A StatefulSet does not replace a pod that never became ready; so the old one goes first.
  const old = view.get('Pod', namespace, 'workspace-0');
  const objects = renderNamespace(spec, launch, {
    namespace,
    installation: options.installation,
    agentImage: options.agentImage,
    ...(options.agentPullPolicy && { agentPullPolicy: options.agentPullPolicy }),
    homeVolume: claim && volumeOfClaim(claim) ? claimed(claim, homeVolume) : homeVolume,
    copies: await readCopies(client, section.pullSecrets),
  });
  let applied: KubeObject[] = [];
  for (const object of objects) {
    // What makes pods comes after everything that they mount.
    applied = [...applied, await applyOne(connection, object)];
  }
  if (
    old &&
    old.metadata.annotations?.[annotations.build] !== launch.buildId &&
    !old.metadata.deletionTimestamp
  )
    await client.remove({ apiVersion: 'v1', kind: 'Pod', namespace, name: 'workspace-0' });

  const inventory = refsOf(objects);
  await prune(client, state.inventory ?? [], inventory, context);
  if (state.scaledDown) await scaleUp(client, namespace);
  const quota = applied.find(({ kind, metadata }) => kind === 'ResourceQuota' && metadata.name === 'cde');
  context.log(`applied ${objects.length} objects to ${namespace} on ${connection.record.name}`);
  const { scaledDown: _, podUid: _uid, restarts: _restarts, said: _said, ...rest } = state;
  return {
    state: {
      ...rest,
      applied: launch.buildId,
      appliedAt: options.now().toISOString(),
      inventory,
      quota: hashOf(quota?.spec),
    },
  };
}

/** A bound claim cannot change its volume, nor shrink. */
function claimed(claim: KubeObject, home: { name: string; size: string; storageClass: string } | null) {
  const spec = claim.spec as {
    volumeName?: string;
    storageClassName?: string;
    resources?: { requests?: { storage?: string } };
  };
  if (home || !spec.volumeName) return home;
  return {
    name: spec.volumeName,
    size: spec.resources?.requests?.storage ?? '1Gi',
    storageClass: spec.storageClassName ?? '',
  };
}

/** The namespace's name; another when somebody else has the plain one. */
async function freeName({ client, view }: Connection, spec: WorkspaceSpec): Promise<string> {
  const mine = view
    .namespaces()
    .find(
      ({ metadata }) =>
        metadata.labels?.[labels.workspace] === spec.workspaceId && !metadata.deletionTimestamp,
    );
  if (mine) return mine.metadata.name;
  const plain = namespaceName(spec.owner, spec.name, spec.workspaceId);
  const other = await client.get({ apiVersion: 'v1', kind: 'Namespace', name: plain });
  if (!other || other.metadata.labels?.[labels.workspace] === spec.workspaceId) return plain;
  return namespaceName(spec.owner, spec.name, spec.workspaceId, true);
}

/** What keeps a namespace from ending, in Kubernetes' words. */
export function stuck(namespace: KubeObject): string {
  const conditions = (
    (namespace.status ?? {}) as { conditions?: { type: string; status: string; message?: string }[] }
  ).conditions;
  const why = conditions?.find(
    ({ type, status }) =>
      status === 'True' && ['NamespaceFinalizersRemaining', 'NamespaceContentRemaining'].includes(type),
  );
  const finalizers = conditions?.find(
    ({ type, status }) => status === 'True' && type === 'NamespaceFinalizersRemaining',
  );
  const message = (finalizers ?? why)?.message;
  return message ? `: ${message.replace(/\.$/, '')}` : '';
}

/** Looks how far the pod is, and says what keeps it. */
async function look(
  connection: Connection,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  before: State,
  context: MoveContext,
  options: StartOptions,
): Promise<Move> {
  const { view } = connection;
  const namespace = before.namespace!;
  const state: State = { ...before };
  const place = { cluster: connection.record.name, namespace };
  const claim = view.get('PersistentVolumeClaim', namespace, 'home');
  const volume = volumeOfClaim(claim);
  if (volume && state.homeVolume !== volume) {
    await protectHome(connection, volume, {
      installation: options.installation,
      workspaceId: spec.workspaceId,
      owner: spec.owner,
      name: spec.name,
    });
    state.homeVolume = volume;
  } else if (volume && spec.restore && !before.podUid) {
    await protectHome(connection, volume, {
      installation: options.installation,
      workspaceId: spec.workspaceId,
      owner: spec.owner,
      name: spec.name,
    });
  }
  const found = view.get('Pod', namespace, 'workspace-0');
  const pod = found?.metadata.annotations?.[annotations.build] === launch.buildId ? found : null;
  const status = pod && workspaceContainer(pod);
  // The home is safe before anybody works in it.
  if (pod && status?.state?.running && state.homeVolume && !pod.metadata.deletionTimestamp) {
    state.podUid = pod.metadata.uid!;
    state.restarts = status.restartCount ?? 0;
    const { said: _, ...rest } = state;
    const { nodeName } = pod.spec as { nodeName?: string };
    context.log(`the pod runs on ${nodeName}`);
    return { kind: 'done', state: write(rest), place, message: `runs on ${nodeName}` };
  }
  const since = new Date(state.appliedAt!);
  // The pod of the build before: a new one is made only when it is gone.
  const old = !pod && found?.metadata.deletionTimestamp ? found : null;
  if (old) await strikeOff(connection.client, old, options.now(), context);
  const reason = explain({
    pod: pod ?? old,
    events: view.list('Event', namespace),
    claims: claim ? [claim] : [],
    statefulSet: view.get('StatefulSet', namespace, 'workspace'),
    since,
    ...(pod && (await crashed(connection, namespace, pod))),
  });
  const text = reason && [reason.message, reason.detail].filter(Boolean).join(' ');
  const late = options.now().getTime() - since.getTime() > mostStartMs;
  if (reason && (reason.fatal || late)) {
    const { fatal: _, ...error } = reason;
    return { kind: 'failed', state: write(state), error };
  }
  if (late)
    return {
      kind: 'failed',
      state: write(state),
      error: {
        code: 'start-timeout',
        message: 'The pod did not come up within 10 minutes, and the cluster does not say why.',
        hint: `Look at it: kubectl -n ${namespace} describe pod workspace-0`,
        fault: 'system',
      },
    };
  if (text && text !== state.said) context.log(text, 'warn');
  return {
    kind: 'again',
    state: write({ ...state, ...(text && { said: text }) }),
    afterMs: lookAgainMs,
    place,
  };
}

/** The last lines of a container that has ended and was started again. */
async function crashed(
  { client }: Connection,
  namespace: string,
  pod: KubeObject,
): Promise<{ lastLines?: string }> {
  if ((workspaceContainer(pod)?.restartCount ?? 0) === 0) return {};
  try {
    const lastLines = await client.logs(namespace, pod.metadata.name, {
      container: 'workspace',
      tailLines: 10,
      previous: true,
    });
    return { lastLines };
  } catch (error) {
    if (error instanceof KubeError) return {};
    throw error;
  }
}
