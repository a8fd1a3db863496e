import type { Logger } from '../../log.ts';
import type {
  EndCause,
  Observation,
  Provider,
  ProviderState,
  StepContext,
  StepResult,
  WorkspaceSpec,
} from '../provider.ts';
import { KubeError } from './api/client.ts';
import type { Connection, Connections } from './api/connections.ts';
import { containerStatus, hasCondition, type Kube } from './api/models.ts';
import { labels } from './api/names.ts';
import { findIncidents, listKubernetesNodes } from './nodes.ts';
import { sectionOf } from './objects/section.ts';
import { explain, explainEnd, explainGone } from './reasons/explain.ts';
import { describePendingService, pendingServices } from './reasons/services.ts';
import { makeDriftRepair } from './steps/drift.ts';
import { purgeRetainedHomes } from './steps/homes.ts';
import { removeStep } from './steps/remove.ts';
import { purgeSnapshots } from './steps/snapshots.ts';
import { startStep } from './steps/start.ts';
import { readState, type State, writeState } from './steps/state.ts';
import { stopStep } from './steps/stop.ts';

/** Later than any home was retained. */
const anyAge = new Date(8.64e15);

const gone = (cause: EndCause, message: string): Observation => ({
  kind: 'gone',
  cause,
  message: `${message}.`,
});

/** Retry delay while a cluster is unreachable; its recovery triggers a step at once. */
const unreachableRetryMs = 5_000;
/** Changes of one workspace within this time are reported once. */
const debounceMs = 150;

export interface KubernetesOptions {
  connections: Connections;
  /** Distinguishes our objects from those of another installation on the same cluster. */
  installation: string;
  /** The image that contains the agent. */
  agentImage: string;
  agentPullPolicy?: string;
  /** Certificate authorities that agents trust beside the public ones, in PEM. */
  agentCa?: string;
  /** The image of builders, if the template names none. */
  builderImage?: string;
  /** The label of nodes that names their pool, if it is one of the installation's own. */
  nodePoolLabel?: string;
  /** URLs that agents connect to besides the server's, such as those of satellites. */
  agentUrls?: () => Promise<readonly string[]>;
  log: Logger;
  now?: () => Date;
}

/** Workspaces as namespaces of Kubernetes clusters. */
export function makeKubernetesProvider(options: KubernetesOptions): Provider {
  const { connections, installation, log, now = () => new Date() } = options;
  const listeners: ((workspaceId: string) => void)[] = [];
  /** By cluster and namespace: a deleted namespace has no label to read the workspace from. */
  const workspaceIds = new Map<string, string>();
  const pending = new Map<string, NodeJS.Timeout>();
  const repair = makeDriftRepair({ installation, log, now });

  connections.onChange((connection, namespace) => {
    const label = connection.view.get('Namespace', '', namespace)?.metadata.labels?.[labels.workspace];
    const key = `${connection.record.name}/${namespace}`;
    if (label) workspaceIds.set(key, label);
    const workspaceId = label ?? workspaceIds.get(key);
    if (!workspaceId || pending.has(workspaceId)) return;
    pending.set(
      workspaceId,
      setTimeout(() => {
        pending.delete(workspaceId);
        for (const listener of listeners) listener(workspaceId);
      }, debounceMs).unref(),
    );
  });

  const isUsable = (connection: Connection) => connection.state === 'ready' && connection.view.synced;
  const describeUnreachable = (connection: Connection) =>
    `The cluster ${connection.record.name} is unreachable${connection.reason ? `: ${connection.reason}` : ' (connecting)'}`;

  /** Another replica may have registered the cluster since this one last read the registry. */
  async function orRefresh(find: () => Connection | null): Promise<Connection | null> {
    const known = find();
    if (known) return known;
    await connections.refresh();
    return find();
  }

  /** Waits without a time limit, and logs the reason once. */
  function waitForCluster(text: string, state: State, context: StepContext): StepResult<never> {
    if (state.lastReason !== text) context.log(text, 'warn');
    const unreachableSince = state.unreachableSince ?? now().toISOString();
    return {
      kind: 'pending',
      state: writeState({ ...state, lastReason: text, unreachableSince }),
      retryAfterMs: unreachableRetryMs,
      message: text,
    };
  }

  /** Once the cluster is reachable again, the outage does not count toward time limits. */
  function excludeOutage({ unreachableSince, ...state }: State): State {
    if (!unreachableSince || !state.appliedAt) return state;
    const outageMs = now().getTime() - Date.parse(unreachableSince);
    return { ...state, appliedAt: new Date(Date.parse(state.appliedAt) + outageMs).toISOString() };
  }

  /** Runs `work` on the workspace's cluster, and waits while it is unreachable. */
  async function onCluster<Done>(
    state: State,
    context: StepContext,
    work: (connection: Connection, state: State) => Promise<StepResult<Done>>,
  ): Promise<StepResult<Done>> {
    const connection = await orRefresh(() => connections.get(state.cluster!));
    if (!connection)
      return {
        kind: 'failed',
        state: writeState(state),
        error: {
          code: 'cluster-not-found',
          message: `The cluster ${state.cluster} of this workspace is no longer registered with the server.`,
          hint: 'An administrator can add it again under the same name.',
          actions: [{ kind: 'add-cluster' }],
          fault: 'system',
        },
      };
    if (!isUsable(connection)) return waitForCluster(describeUnreachable(connection), state, context);
    try {
      if (state.namespace) await connection.grants.ensure(state.namespace);
      return await work(connection, excludeOutage(state));
    } catch (error) {
      if (error instanceof KubeError && error.unreachable)
        return waitForCluster(
          `The cluster ${connection.record.name} does not answer: ${error.message}`,
          state,
          context,
        );
      if (error instanceof KubeError) {
        log.warn({ err: error, cluster: connection.record.name }, 'a cluster rejected a call');
        return {
          kind: 'failed',
          state: writeState(state),
          error: {
            code: error.status === 403 ? 'cluster-forbids' : 'cluster-refused',
            message: `The cluster ${connection.record.name} rejected a request.`,
            detail: error.message,
            hint: 'An administrator can see which permissions are missing.',
            actions: [{ kind: 'show-cluster', cluster: connection.record.name }],
            fault: 'system',
          },
        };
      }
      throw error;
    }
  }

  /** The cluster of the workspace's home; without a home yet, the one that the template selects. */
  async function chooseCluster(
    spec: WorkspaceSpec,
    state: State,
  ): Promise<{ name: string } | { failed: StepResult<never> }> {
    const wanted = sectionOf(spec).cluster;
    const at = state.cluster ?? readState(spec.restore?.state ?? {}).cluster;
    const failed = (code: string, message: string, hint: string): { failed: StepResult<never> } => ({
      failed: { kind: 'failed', state: writeState(state), error: { code, message, hint, fault: 'user' } },
    });
    if (at) {
      const record = connections.get(at)?.record;
      const fits =
        !wanted ||
        wanted === at ||
        !record ||
        (typeof wanted === 'object' &&
          Object.entries(wanted.labels).every(
            ([name, value]) =>
              (record.labels[name] ?? (name === 'region' ? record.region : undefined)) === value,
          ));
      if (fits) return { name: at };
      return failed(
        'cluster-change',
        `The home is on the cluster ${at}, and the template selects another one.`,
        'A home cannot move between clusters. Create a new workspace, and copy the files.',
      );
    }
    const chosen = await orRefresh(() => connections.choose(wanted));
    if (chosen) return { name: chosen.record.name };
    return failed(
      'cluster-not-found',
      wanted
        ? `No cluster is ${typeof wanted === 'string' ? `named ${wanted}` : `labelled ${JSON.stringify(wanted.labels)}`}.`
        : 'There is no default cluster.',
      'An administrator can add one.',
    );
  }

  const provider: Provider = {
    name: 'kubernetes',

    async start(spec, launch, remembered, context) {
      const state = readState(remembered);
      if (!spec.template.kubernetes)
        return {
          kind: 'failed',
          state: remembered,
          error: {
            code: 'template-invalid',
            message: 'The template has no section "kubernetes".',
            fault: 'user',
          },
        };
      const chosen = await chooseCluster(spec, state);
      if ('failed' in chosen) return chosen.failed;
      const assigned = { ...state, cluster: chosen.name };
      return onCluster(assigned, context, (connection, known) =>
        startStep(connection, spec, launch, known, context, {
          installation,
          ...(options.agentUrls && { agentUrls: options.agentUrls }),
          agentImage: options.agentImage,
          ...(options.agentCa && { agentCa: options.agentCa }),
          ...(options.builderImage && { builderImage: options.builderImage }),
          ...(options.nodePoolLabel && { nodePoolLabel: options.nodePoolLabel }),
          ...(options.agentPullPolicy && { agentPullPolicy: options.agentPullPolicy }),
          now,
        }),
      );
    },

    async stop(_workspaceId, remembered, context) {
      const state = readState(remembered);
      if (!state.cluster || !state.namespace) return { kind: 'done', state: remembered };
      return onCluster(state, context, (connection, known) => stopStep(connection, known, context, now()));
    },

    async remove(workspaceId, remembered, home, context) {
      const state = readState(remembered);
      if (!state.cluster || !state.namespace) return { kind: 'done', state: remembered, homeRetained: false };
      return onCluster(state, context, (connection, known) =>
        removeStep(connection, workspaceId, known, home, context, { installation, now: now() }),
      );
    },

    async observe(_workspaceId, remembered, spec): Promise<Observation> {
      const state = readState(remembered);
      const connection = state.cluster ? connections.get(state.cluster) : null;
      if (!state.cluster || !state.namespace)
        return { kind: 'gone', cause: 'missing', message: 'The workspace has no namespace.' };
      if (!connection)
        return {
          kind: 'unknown',
          message: `The cluster ${state.cluster} is no longer registered with the server.`,
        };
      if (!isUsable(connection))
        return { kind: 'unknown', message: `${describeUnreachable(connection).replace(/\.$/, '')}.` };
      const drift = () => (spec ? repair(connection, spec, state) : null);
      return observeWorkspace(connection, state, spec, drift, now());
    },

    describeHome(remembered) {
      const { home, homeSize } = readState(remembered);
      return { ...(home && { directory: home }), ...(homeSize && { size: homeSize }) };
    },

    async purgeHomes({ retainedBefore = anyAge, ...options }) {
      const purged: string[] = [];
      let incomplete = false;
      // A cluster that this replica has not read yet can hold homes too.
      await connections.refresh();
      for (const connection of connections.all()) {
        if (!isUsable(connection)) {
          incomplete = true;
          continue;
        }
        try {
          const result = await purgeRetainedHomes(connection.client, installation, retainedBefore, options);
          purged.push(...result.purged);
          incomplete ||= result.incomplete;
          await purgeSnapshots(connection.client, installation, retainedBefore, options);
        } catch (error) {
          if (!(error instanceof KubeError)) throw error;
          incomplete = true;
          log.warn({ err: error, cluster: connection.record.name }, 'failed to purge retained homes');
        }
      }
      return { purged, incomplete };
    },

    onChange: (listener) => void listeners.push(listener),
    nodes: async () => listKubernetesNodes(connections, options.nodePoolLabel),
    onNodeIncident(listener) {
      connections.onNode((connection, node, before) => {
        for (const incident of findIncidents(connection, node, before, now())) listener(incident);
      });
    },
    async close() {
      for (const timer of pending.values()) clearTimeout(timer);
      pending.clear();
      listeners.length = 0;
    },
  };

  return provider;
}

export type { ProviderState };

/** What the watches show of the workspace. `drift` repairs, and returns what remains. */
async function observeWorkspace(
  { view }: Connection,
  state: State,
  spec: WorkspaceSpec | undefined,
  drift: () => Promise<string | null> | null,
  now: Date,
): Promise<Observation> {
  const namespace = state.namespace!;
  const found = view.get('Namespace', '', namespace);
  if (!found) return gone('removed', `The namespace ${namespace} was deleted`);
  if (found.metadata.deletionTimestamp)
    return gone('removed', `Someone is deleting the namespace ${namespace}`);
  const statefulSet = view.get('StatefulSet', namespace, 'workspace');
  if (!statefulSet) return gone('removed', 'The StatefulSet of the workspace was deleted');
  if (statefulSet.spec?.replicas === 0) return gone('removed', 'Someone scaled the workspace to zero');
  const remainingDrift = await drift();
  const pod = view.get('Pod', namespace, 'workspace-0');
  const events = view.list('Event', namespace);
  if (!pod || (state.podUid !== undefined && pod.metadata.uid !== state.podUid)) {
    const end = explainGone({ name: 'workspace-0', uid: state.podUid }, events);
    return end ? gone(end.cause, end.message) : gone('removed', 'The pod was deleted, not by cde');
  }
  if (hasEnded(pod, state)) {
    const end = explainEnd(pod, events);
    return gone(end.cause, end.message);
  }
  if (hasCondition(pod, 'Ready') && containerStatus(pod, 'workspace')?.state?.running) {
    const since = new Date(state.appliedAt ?? 0);
    const service =
      spec &&
      pendingServices(view, namespace, sectionOf(spec), since, now).find(({ reason }) => reason !== null);
    const warning = remainingDrift ?? (service ? describePendingService(service) : null);
    return { kind: 'running', ...(warning && { warning }) };
  }
  const claim = view.get('PersistentVolumeClaim', namespace, 'home');
  const reason = explain({ pod, events, claims: claim ? [claim] : [], statefulSet });
  return { kind: 'running', ...(reason && { warning: reason.message }) };
}

/** Whether the compute of a pod ended. A terminating pod does not come back, even if it is still running. */
const hasEnded = (pod: Kube<'Pod'>, { restarts = 0 }: State) =>
  pod.status?.phase === 'Failed' ||
  pod.status?.phase === 'Succeeded' ||
  pod.metadata.deletionTimestamp !== undefined ||
  (containerStatus(pod, 'workspace')?.restartCount ?? 0) > restarts;
