import type { KubernetesSection } from '@cde/api/template-file.ts';
import type { AgentLaunch, StepContext, WorkspaceSpec } from '../../provider.ts';
import type { Connection } from '../api/connections.ts';
import { isKind, type Kube, type KubeObject } from '../api/models.ts';
import { labels } from '../api/names.ts';
import { builderNames, registriesOf } from '../objects/builder.ts';
import { StepFailure } from '../objects/failure.ts';
import { hashOf } from '../objects/hash.ts';
import { namespaceName } from '../objects/names.ts';
import { quotaObject, renderNamespace } from '../objects/namespace.ts';
import { destinationsOf } from '../objects/network.ts';
import { sectionOf } from '../objects/section.ts';
import { describeStuckNamespace } from '../reasons/namespaces.ts';
import { applyOne, prune, readSecretCopies, refsOf } from './apply.ts';
import { applyCache, applyHome } from './claims.ts';
import { contentOf, guards } from './drift.ts';
import { findHome, replaceClaim } from './home-claim.ts';
import type { HomeVolume } from './homes.ts';
import type { State } from './state.ts';
import { isOfBuild, removePod, scaleUp } from './workloads.ts';

/** Replicas of the API server see a reopened quota a moment later. */
const quotaPropagationMs = 1_000;
/** As do its authorizers with new role bindings. */
const permissionsPropagationMs = 1_000;

export interface StartOptions {
  installation: string;
  agentImage: string;
  agentPullPolicy?: string;
  /** Certificate authorities that agents trust beside the public ones, in PEM. */
  agentCa?: string;
  /** The image of builders, if the template names none. */
  builderImage?: string;
  /** URLs that agents have to reach beside the server's. */
  agentUrls?: () => Promise<readonly string[]>;
  /** The label of nodes that names their pool, beside those of clouds. */
  nodePoolLabel?: string;
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
  const state: State = { ...before };
  const namespace = state.namespace!;
  const claim = view.get('PersistentVolumeClaim', namespace, 'home');
  const blocked =
    (await openNamespace(connection, spec, state, options)) ??
    (await replaceClaim(connection, spec, launch, state, claim, context, options));
  if (blocked) return blocked;
  const home = await findHome(connection, spec, state, claim);
  if (home === 'in-use')
    return {
      state,
      waits: `The volume of the home (${state.homeVolume}) is still claimed in another namespace.`,
    };

  const objects = await renderObjects(connection, spec, launch, { namespace, home }, options);
  const applied = await applyAll(connection, spec, objects, claim, context);
  if (!applied)
    return {
      state,
      waits: 'Waiting for the permissions in the new namespace to take effect.',
      afterMs: permissionsPropagationMs,
    };
  // A StatefulSet does not replace a pod that never became ready.
  await removePod(connection, namespace, (pod) => !isOfBuild(pod, launch.buildId));

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

/** What the start waits for until objects can be applied to the namespace; null if they can. */
async function openNamespace(
  connection: Connection,
  spec: WorkspaceSpec,
  state: State,
  options: StartOptions,
): Promise<Applied | null> {
  const { client, view } = connection;
  const namespace = state.namespace!;
  const there = view.get('Namespace', '', namespace);
  if (there?.metadata.deletionTimestamp)
    return {
      state,
      waits: `The namespace ${namespace} is still being deleted${describeStuckNamespace(there)}.`,
    };
  // It existed once. If it was deleted since, another with that name may belong to somebody else.
  if (!there && state.inventory) await assertNamespaceIsOurs(connection, namespace, spec.workspaceId);
  if (!state.quotaClosed) return null;
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

async function renderObjects(
  { client, grants, version }: Connection,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  { namespace, home }: { namespace: string; home: HomeVolume | null },
  options: StartOptions,
): Promise<KubeObject[]> {
  const section = sectionOf(spec);
  const copies = await readSecretCopies(client, secretsToCopy(section));
  return renderNamespace(spec, launch, {
    namespace,
    installation: options.installation,
    server: (await grants.identity())?.label,
    agentImage: options.agentImage,
    ...(options.agentPullPolicy && { agentPullPolicy: options.agentPullPolicy }),
    supportsHostnameOverride: supportsHostnameOverride(version),
    homeVolume: home,
    copies,
    ...(options.agentCa && { agentCa: options.agentCa }),
    ...(options.builderImage && { builderImage: options.builderImage }),
    ...(section.egress === 'namespace' && {
      reach: await destinationsOf([...launch.serverUrl.split(','), ...((await options.agentUrls?.()) ?? [])]),
      builderReach: await destinationsOf(registriesOf(section, copies)),
    }),
  });
}

/** The objects as the cluster returned them; null if the server's permissions in a new namespace do not hold yet. */
async function applyAll(
  connection: Connection,
  spec: WorkspaceSpec,
  objects: readonly KubeObject[],
  claim: Kube<'PersistentVolumeClaim'> | null,
  context: StepContext,
): Promise<KubeObject[] | null> {
  const applied: KubeObject[] = [];
  let isNew = false;
  try {
    for (const object of objects) {
      applied.push(await apply(object));
      if (object.kind === 'Namespace') isNew = await connection.grants.ensure(object.metadata.name);
    }
  } catch (error) {
    if (!isNew || !(error instanceof StepFailure) || error.error.code !== 'cluster-forbids') throw error;
    return null;
  }
  return applied;

  async function apply(object: KubeObject): Promise<KubeObject> {
    if (isKind(object, 'PersistentVolumeClaim')) {
      const { name, namespace } = object.metadata;
      if (name === 'home') return applyHome(connection, object, spec, claim, context);
      if (name === builderNames.cache) {
        const cache = connection.view.get('PersistentVolumeClaim', namespace!, builderNames.cache);
        return applyCache(connection, object, cache, context);
      }
    }
    return applyOne(connection, object);
  }
}

/** `hostnameOverride` exists since 1.35; older clusters reject it. */
const supportsHostnameOverride = (version: string | null): boolean => {
  const [, major = '0', minor = '0'] = /^v(\d+)\.(\d+)/.exec(version ?? '') ?? [];
  return Number(major) > 1 || Number(minor) >= 35;
};

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
