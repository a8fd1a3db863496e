import type { KubernetesSection } from '@cde/api/template-file.ts';
import type { AgentLaunch, StepContext, WorkspaceSpec } from '../../provider.ts';
import { KubeError } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { isKind, type Kube, type KubeObject } from '../api/models.ts';
import { annotations, labels } from '../api/names.ts';
import { builderNames, registriesOf } from '../objects/builder.ts';
import { StepFailure } from '../objects/failure.ts';
import { hashOf } from '../objects/hash.ts';
import { namespaceName } from '../objects/names.ts';
import { quotaObject, renderNamespace } from '../objects/namespace.ts';
import { destinationsOf } from '../objects/network.ts';
import { sectionOf } from '../objects/section.ts';
import { describeStuckNamespace } from '../reasons/namespaces.ts';
import { applyOne, prune, readSecretCopies, refsOf } from './apply.ts';
import { applyCache, applyHome, hasOtherStorageClass, homeVolumeOf } from './claims.ts';
import { contentOf, guards } from './drift.ts';
import { type HomeVolume, releaseHome, volumeOfClaim } from './homes.ts';
import { readState, type State } from './state.ts';
import { scaleUp } from './workloads.ts';

/** Replicas of the API server see a reopened quota a moment later. */
const quotaPropagationMs = 1_000;

export interface StartOptions {
  installation: string;
  agentImage: string;
  agentPullPolicy?: string;
  /** The image of builders, if the template names none. */
  builderImage?: string;
  /** URLs that agents have to reach beside the server's. */
  agentUrls?: () => Promise<readonly string[]>;
  now: () => Date;
}

/** The state after applying; with `waits`, what has to happen before anything can be applied. */
export type Applied = { state: State } | { state: State; waits: string; afterMs?: number };

/** Applies the objects of the template for this build, and prunes those of earlier builds. */
export async function applyTemplate(
  connection: Connection,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  before: State,
  context: StepContext,
  options: StartOptions,
): Promise<Applied> {
  const { client, view } = connection;
  const section = sectionOf(spec);
  const state: State = { ...before };
  const namespace = state.namespace!;
  const there = view.get('Namespace', '', namespace);
  if (there?.metadata.deletionTimestamp)
    return {
      state,
      waits: `The namespace ${namespace} is still being deleted${describeStuckNamespace(there)}.`,
    };
  // It existed once. If it was deleted since, another with that name may belong to somebody else.
  if (!there && state.inventory) await assertNamespaceIsOurs(connection, namespace, spec.workspaceId);
  if (state.quotaClosed) {
    const { quotaClosed: _, ...opened } = state;
    await client.patch(
      { apiVersion: 'v1', kind: 'ResourceQuota', namespace, name: 'cde' },
      { spec: quotaObject(spec, { namespace, installation: options.installation }).spec },
    );
    return {
      state: opened,
      waits: 'Waiting for the namespace to accept pods again.',
      afterMs: quotaPropagationMs,
    };
  }

  const claim = view.get('PersistentVolumeClaim', namespace, 'home');
  const old = view.get('Pod', namespace, 'workspace-0');
  const removeOld = () =>
    old && !old.metadata.deletionTimestamp && old.metadata.annotations?.[annotations.build] !== launch.buildId
      ? // By uid: the StatefulSet may already have created the new one under the same name.
        client
          .remove(
            { apiVersion: 'v1', kind: 'Pod', namespace, name: 'workspace-0' },
            { ...(old.metadata.uid && { uid: old.metadata.uid }) },
          )
          .catch(ignoreChanged)
      : undefined;
  if (claim?.metadata.deletionTimestamp) {
    await removeOld();
    return {
      state,
      waits: volumeOfClaim(claim)
        ? 'The claim of the home is being deleted; its volume is kept and gets a new claim.'
        : 'The claim of the home was never bound to a volume; it is created again.',
    };
  }
  if (claim && hasOtherStorageClass(claim, section)) {
    await removeOld();
    const { uid } = claim.metadata;
    await client
      .remove(
        { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name: 'home' },
        uid ? { uid } : {},
      )
      .catch(ignoreChanged);
    return { state, waits: 'The claim of the home was never bound to a volume; it is created again.' };
  }
  const found = await findHome(connection, spec, state, claim);
  if (found === 'in-use')
    return {
      state,
      waits: `The volume of the home (${state.homeVolume}) is still claimed in another namespace.`,
    };

  const copies = await readSecretCopies(client, secretsToCopy(section));
  const server = (await connection.grants.identity())?.label;
  const objects = renderNamespace(spec, launch, {
    namespace,
    installation: options.installation,
    server,
    agentImage: options.agentImage,
    ...(options.agentPullPolicy && { agentPullPolicy: options.agentPullPolicy }),
    supportsHostnameOverride: supportsHostnameOverride(connection.version),
    homeVolume: found,
    copies,
    ...(options.builderImage && { builderImage: options.builderImage }),
    ...(section.egress === 'namespace' && {
      reach: await destinationsOf([...launch.serverUrl.split(','), ...((await options.agentUrls?.()) ?? [])]),
      builderReach: await destinationsOf(registriesOf(section, copies)),
    }),
  });
  const applied: KubeObject[] = [];
  const cache = view.get('PersistentVolumeClaim', namespace, builderNames.cache);
  let isNew = false;
  try {
    for (const object of objects) {
      applied.push(await apply(object));
      if (object.kind === 'Namespace') isNew = await connection.grants.ensure(namespace);
    }
  } catch (error) {
    if (!isNew || !(error instanceof StepFailure) || error.error.code !== 'cluster-forbids') throw error;
    return {
      state,
      waits: 'Waiting for the permissions in the new namespace to take effect.',
      afterMs: 1_000,
    };
  }
  // A StatefulSet does not replace a pod that never became ready.
  await removeOld();

  async function apply(object: KubeObject): Promise<KubeObject> {
    if (isKind(object, 'PersistentVolumeClaim')) {
      if (object.metadata.name === 'home') return applyHome(connection, object, spec, claim, context);
      if (object.metadata.name === builderNames.cache) return applyCache(connection, object, cache, context);
    }
    return applyOne(connection, object);
  }

  const inventory = refsOf(objects);
  await prune(client, state.inventory ?? [], inventory, context);
  if (state.scaled) await scaleUp(client, state.scaled);
  const quota = applied.find(({ kind, metadata }) => kind === 'ResourceQuota' && metadata.name === 'cde');
  context.log(`applied ${objects.length} objects to ${namespace} on ${connection.record.name}`);
  const {
    scaled: _,
    podUid: _uid,
    restarts: _restarts,
    lastReason: _said,
    runningSince: _runs,
    ...rest
  } = state;
  return {
    state: {
      ...rest,
      appliedBuild: launch.buildId,
      appliedAt: options.now().toISOString(),
      inventory,
      quotaHash: hashOf(quota?.spec),
      guards: Object.fromEntries(
        applied
          .filter(({ kind, metadata: { name } }) => guards.get(kind)?.name === name)
          .map((object) => [object.kind, contentOf(object)]),
      ),
    },
  };
}

/** `hostnameOverride` exists since 1.35; older clusters reject it. */
const supportsHostnameOverride = (version: string | null): boolean => {
  const [, major = '0', minor = '0'] = /^v(\d+)\.(\d+)/.exec(version ?? '') ?? [];
  return Number(major) > 1 || Number(minor) >= 35;
};

/** The object to remove is gone, or is a different one by now. */
function ignoreChanged(error: unknown): boolean {
  if (error instanceof KubeError && [404, 409].includes(error.status)) return false;
  throw error;
}

async function assertNamespaceIsOurs(
  { client }: Connection,
  name: string,
  workspaceId: string,
): Promise<void> {
  const there = await client.get({ apiVersion: 'v1', kind: 'Namespace', name });
  if (!there || there.metadata.labels?.[labels.workspace] === workspaceId) return;
  throw new StepFailure({
    code: 'namespace-taken',
    message: `The namespace ${name} was deleted, and another one with the same name was created outside of cde.`,
    hint: 'Delete it from the cluster, then start again.',
    fault: 'system',
  });
}

/** The secrets that a template copies into its namespace, as NAMESPACE/NAME. */
export const secretsToCopy = ({ pullSecrets, builder }: KubernetesSection): string[] => [
  ...pullSecrets,
  ...(typeof builder === 'object' && builder.registrySecret ? [builder.registrySecret] : []),
];

/**
 * The volume for the home's claim; null to have the cluster provision one. A known home that is gone is an error, and
 * never silently replaced by an empty one.
 */
async function findHome(
  { client, record }: Connection,
  spec: WorkspaceSpec,
  state: State,
  claim: Kube<'PersistentVolumeClaim'> | null,
): Promise<HomeVolume | 'in-use' | null> {
  const namespace = state.namespace!;
  if (claim && volumeOfClaim(claim)) return homeVolumeOf(claim);
  if (spec.restore && !state.homeVolume) {
    const from = readState(spec.restore.state).homeVolume;
    if (!from)
      throw new StepFailure({
        code: 'home-not-restorable',
        message: 'The volume of the home to restore is not known.',
        hint: 'An administrator can look for volumes labelled cde.dev/home=kept.',
        fault: 'system',
      });
    state.homeVolume = from;
    state.restoring = spec.restore.workspaceId;
  }
  if (!state.homeVolume) return null;
  const home = await releaseHome(client, state.homeVolume, namespace);
  if (home === null) {
    const snapshot = readState(spec.restore?.state ?? {}).snapshot?.content;
    throw new StepFailure({
      code: 'home-lost',
      message: `The volume of the home (${state.homeVolume}) is gone from the cluster ${record.name}.`,
      detail: `It was deleted outside of cde. It is not replaced by an empty home.${snapshot ? ` A snapshot of it exists: ${snapshot}.` : ''}`,
      hint: 'Restore the volume from a backup under the same name, or delete the workspace and its home.',
      fault: 'system',
    });
  }
  // A claim stays Lost even if its volume comes back.
  if (claim?.status?.phase === 'Lost')
    await client.remove({ apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name: 'home' });
  delete state.protectedVolume;
  return home;
}

/** The name for the workspace's namespace; one with a hash if another namespace has the plain name. */
export async function chooseNamespace({ client, view }: Connection, spec: WorkspaceSpec): Promise<string> {
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
