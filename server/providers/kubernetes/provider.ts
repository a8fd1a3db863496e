import type { KubernetesSection } from '@cde/api/templates.ts';
import type { Logger } from '../../log.ts';
import type { Move, MoveContext, Observation, Provider, ProviderState, WorkspaceSpec } from '../provider.ts';
import { applyOne, Refused } from './apply.ts';
import { KubeError } from './client.ts';
import type { Connection, Connections } from './connections.ts';
import { giveUpHome, keepHome, purgeKept, volumeOfClaim } from './homes.ts';
import { labels } from './names.ts';
import { renderNamespace } from './namespace.ts';
import { explain, explainEnd, explainGone } from './reasons.ts';
import { hashOf, startMove, stuck, workspaceContainer } from './start.ts';
import { read, type State, write } from './state.ts';
import { clearPods, scaleDown } from './workloads.ts';

/** How soon a cluster that is away is asked again; its return wakes us anyway. */
const awayMs = 5_000;
const lookAgainMs = 2_000;
/** Changes of one workspace within this time are told once. */
const gatherMs = 150;

export interface KubernetesOptions {
  connections: Connections;
  /** Tells our objects from another installation's on the same cluster. */
  installation: string;
  /** The image that brings the agent into every pod. */
  agentImage: string;
  agentPullPolicy?: string;
  log: Logger;
  now?: () => Date;
}

/** Workspaces as namespaces of Kubernetes clusters. */
export function makeKubernetesProvider(options: KubernetesOptions): Provider {
  const { connections, installation, log, now = () => new Date() } = options;
  const listeners: ((workspaceId: string) => void)[] = [];
  /** Which workspace a namespace is of; its own label is gone with it. */
  const owners = new Map<string, string>();
  const due = new Map<string, NodeJS.Timeout>();

  connections.onChange((connection, namespace) => {
    const label = connection.view.get('Namespace', '', namespace)?.metadata.labels?.[labels.workspace];
    const key = `${connection.record.name}/${namespace}`;
    if (label) owners.set(key, label);
    const workspaceId = label ?? owners.get(key);
    if (!workspaceId || due.has(workspaceId)) return;
    due.set(
      workspaceId,
      setTimeout(() => {
        due.delete(workspaceId);
        for (const listener of listeners) listener(workspaceId);
      }, gatherMs).unref(),
    );
  });

  const isUsable = (connection: Connection) => connection.state === 'ready' && connection.view.synced;
  const awayText = (connection: Connection) =>
    `The cluster ${connection.record.name} is away${connection.reason ? `: ${connection.reason}` : ' (connecting)'}`;

  /** Waits, as long as it takes, with one line in the log. */
  function waitFor(text: string, state: State, context: MoveContext): Move {
    if (state.said !== text) context.log(text, 'warn');
    return { kind: 'again', state: write({ ...state, said: text }), afterMs: awayMs };
  }

  /** Runs `work` on the workspace's cluster; that one being away is no failure. */
  async function on(
    state: State,
    context: MoveContext,
    work: (connection: Connection) => Promise<Move>,
  ): Promise<Move> {
    const connection = connections.get(state.cluster!);
    if (!connection)
      return {
        kind: 'failed',
        state: write(state),
        error: {
          code: 'cluster-not-found',
          message: `The cluster ${state.cluster}, on which this workspace lies, is not known to the server any more.`,
          hint: 'An administrator can add it again under the same name: cde cluster add',
          fault: 'system',
        },
      };
    if (!isUsable(connection)) return waitFor(awayText(connection), state, context);
    try {
      return await work(connection);
    } catch (error) {
      if (error instanceof KubeError && error.away)
        return waitFor(
          `The cluster ${connection.record.name} does not answer: ${error.message}`,
          state,
          context,
        );
      if (error instanceof KubeError) {
        log.warn({ err: error, cluster: connection.record.name }, 'a cluster refused a call');
        return {
          kind: 'failed',
          state: write(state),
          error: {
            code: error.status === 403 ? 'cluster-forbids' : 'cluster-refused',
            message: `The cluster ${connection.record.name} refused what we asked of it.`,
            detail: error.message,
            hint: 'An administrator can see what the credentials lack: cde cluster show',
            fault: 'system',
          },
        };
      }
      throw error;
    }
  }

  /** Where it lies, or is to lie: where its home is, once it has one. */
  function choose(spec: WorkspaceSpec, state: State): { name: string } | { failed: Move } {
    const wanted = (spec.template.kubernetes as KubernetesSection).cluster;
    const at = state.cluster ?? read(spec.restore?.state ?? {}).cluster;
    const failed = (code: string, message: string, hint: string): { failed: Move } => ({
      failed: { kind: 'failed', state: write(state), error: { code, message, hint, fault: 'user' } },
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
        `The home lies on the cluster ${at}, and the template wants another one.`,
        'A home cannot move between clusters: create a new workspace, and copy the files.',
      );
    }
    const chosen = connections.choose(wanted);
    if (chosen) return { name: chosen.record.name };
    return failed(
      'cluster-not-found',
      wanted
        ? `No cluster is ${typeof wanted === 'string' ? `named ${wanted}` : `labelled ${JSON.stringify(wanted.labels)}`}.`
        : 'There is no default cluster.',
      'An administrator can add one: cde cluster add',
    );
  }

  const provider: Provider = {
    name: 'kubernetes',

    async start(spec, launch, remembered, context) {
      const state = read(remembered);
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
      const chosen = choose(spec, state);
      if ('failed' in chosen) return chosen.failed;
      const placed = { ...state, cluster: chosen.name };
      return on(placed, context, (connection) =>
        startMove(connection, spec, launch, placed, context, {
          installation,
          agentImage: options.agentImage,
          ...(options.agentPullPolicy && { agentPullPolicy: options.agentPullPolicy }),
          now,
        }),
      );
    },

    async stop(_workspaceId, remembered, context) {
      const state = read(remembered);
      const { applied: _applied, podUid: _pod, said: _said, ...rest } = state;
      const stopped: Move = { kind: 'done', state: write({ ...rest, scaledDown: true }) };
      if (!state.cluster || !state.namespace) return { kind: 'done', state: remembered };
      return on(state, context, async ({ client, view }) => {
        const namespace = state.namespace!;
        const there = view.get('Namespace', '', namespace);
        if (!there || there.metadata.deletionTimestamp) return stopped;
        if (!state.scaledDown) await scaleDown(client, namespace);
        const left = await clearPods(client, namespace, now(), context);
        if (left === 0) return stopped;
        return { kind: 'again', state: write({ ...state, scaledDown: true }), afterMs: lookAgainMs };
      });
    },

    async remove(_workspaceId, remembered, home, context) {
      const state = read(remembered);
      if (!state.cluster || !state.namespace) return { kind: 'done', state: remembered };
      return on(state, context, async ({ client, view }) => {
        const namespace = state.namespace!;
        const volume =
          state.homeVolume ?? volumeOfClaim(view.get('PersistentVolumeClaim', namespace, 'home'));
        let kept = false;
        if (volume && home === 'keep') kept = await keepHome(client, volume, now());
        else if (volume) await giveUpHome(client, volume);
        const ref = { apiVersion: 'v1', kind: 'Namespace', name: namespace };
        const there = await client.get(ref);
        if (there) {
          if (!there.metadata.deletionTimestamp) await client.remove(ref);
          const text = `The namespace ${namespace} is being deleted${stuck(there)}.`;
          if (state.said !== text && stuck(there)) context.log(text, 'warn');
          return {
            kind: 'again',
            state: write({
              ...state,
              ...(volume && { homeVolume: volume }),
              ...(stuck(there) && { said: text }),
            }),
            afterMs: lookAgainMs,
          };
        }
        const { said: _, applied: _applied, ...rest } = state;
        return {
          kind: 'done',
          state: write({ ...rest, ...(volume && { homeVolume: volume }) }),
          ...(kept && { home: volume! }),
        };
      });
    },

    async observe(_workspaceId, remembered, spec): Promise<Observation> {
      const state = read(remembered);
      const connection = state.cluster ? connections.get(state.cluster) : null;
      if (!state.cluster || !state.namespace) return { kind: 'absent' };
      if (!connection)
        return {
          kind: 'unknown',
          reason: `The cluster ${state.cluster} is not known to the server any more.`,
        };
      if (!isUsable(connection))
        return { kind: 'unknown', reason: `${awayText(connection).replace(/\.$/, '')}.` };
      const { view } = connection;
      const { namespace } = state;
      const there = view.get('Namespace', '', namespace);
      if (!there) return { kind: 'absent', reason: `The namespace ${namespace} was deleted` };
      if (there.metadata.deletionTimestamp)
        return { kind: 'absent', reason: `Somebody is deleting the namespace ${namespace}` };
      const statefulSet = view.get('StatefulSet', namespace, 'workspace');
      if (!statefulSet) return { kind: 'absent', reason: 'The StatefulSet of the workspace was deleted' };
      if ((statefulSet.spec as { replicas?: number }).replicas === 0)
        return { kind: 'absent', reason: 'Somebody scaled the workspace to zero' };
      if (spec) await repair(connection, spec, state);
      const buildId = state.applied ?? '';
      const pod = view.get('Pod', namespace, 'workspace-0');
      const events = view.list('Event', namespace);
      const gone = () =>
        explainGone({ name: 'workspace-0', uid: state.podUid }, events) ?? 'The pod was deleted, not by cde';
      if (!pod) return { kind: 'exited', buildId, reason: gone() };
      const status = workspaceContainer(pod);
      const { phase, conditions } = (pod.status ?? {}) as {
        phase?: string;
        conditions?: { type: string; status: string }[];
      };
      const replaced = state.podUid !== undefined && pod.metadata.uid !== state.podUid;
      if (replaced) return { kind: 'exited', buildId, reason: gone() };
      // A pod that is being deleted will not come back, whatever it still does: its end begins the next start.
      const ended =
        phase === 'Failed' || phase === 'Succeeded' || pod.metadata.deletionTimestamp !== undefined;
      if (ended || (status?.restartCount ?? 0) > (state.restarts ?? 0))
        return { kind: 'exited', buildId, reason: explainEnd(pod, events) };
      const ready = conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True');
      if (ready && status?.state?.running) return { kind: 'running', buildId };
      const claim = view.get('PersistentVolumeClaim', namespace, 'home');
      const reason = explain({ pod, events, claims: claim ? [claim] : [], statefulSet });
      return { kind: 'running', buildId, ...(reason && { note: reason.message }) };
    },

    async purgeHomes(graceMs, at, more = {}) {
      const purged: string[] = [];
      for (const connection of connections.all()) {
        if (!isUsable(connection)) continue;
        try {
          purged.push(
            ...(await purgeKept(connection.client, installation, new Date(at.getTime() - graceMs), more)),
          );
        } catch (error) {
          if (!(error instanceof KubeError)) throw error;
          log.warn({ err: error, cluster: connection.record.name }, 'kept homes could not be looked through');
        }
      }
      return purged;
    },

    onChange: (listener) => void listeners.push(listener),
    async close() {
      for (const timer of due.values()) clearTimeout(timer);
      due.clear();
      listeners.length = 0;
    },
  };

  /** What somebody has edited goes back to what the template says; what we cannot is left, and logged. */
  async function repair(connection: Connection, spec: WorkspaceSpec, state: State): Promise<void> {
    const quota = connection.view.get('ResourceQuota', state.namespace!, 'cde');
    if (quota && hashOf(quota.spec) === state.quota) return;
    const wanted = renderNamespace(
      spec,
      { buildId: state.applied ?? '', serverUrl: '', token: '' },
      { namespace: state.namespace!, installation, agentImage: options.agentImage },
    ).find(({ kind, metadata }) => kind === 'ResourceQuota' && metadata.name === 'cde')!;
    try {
      // An edit takes the field over; this one is ours.
      await connection.client.remove({
        apiVersion: 'v1',
        kind: 'ResourceQuota',
        namespace: state.namespace!,
        name: 'cde',
      });
      await applyOne(connection, wanted);
      log.info({ workspace: spec.workspaceId, namespace: state.namespace }, 'an edited quota was put back');
    } catch (error) {
      if (!(error instanceof KubeError) && !(error instanceof Refused)) throw error;
      log.warn({ err: error, namespace: state.namespace }, 'an edited quota could not be put back');
    }
  }

  return provider;
}

export type { ProviderState };
