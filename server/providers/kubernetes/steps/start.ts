import type {
  AgentLaunch,
  ProviderError,
  Started,
  StepContext,
  StepResult,
  WorkspaceSpec,
} from '../../provider.ts';
import { parseDuration } from '../../quantity.ts';
import { KubeError } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { containerStatus, type Kube } from '../api/models.ts';
import { StepFailure } from '../objects/failure.ts';
import { homeOf } from '../objects/pod.ts';
import { sectionOf } from '../objects/section.ts';
import { explain } from '../reasons/explain.ts';
import { explainKernelProfile } from '../reasons/kernel-profiles.ts';
import { describePendingService, pendingServices } from '../reasons/services.ts';
import { NamespaceTerminating } from './apply.ts';
import { applyTemplate, chooseNamespace, type StartOptions } from './apply-template.ts';
import { noteRestore, protectVolume } from './home-claim.ts';
import { volumeOfClaim } from './homes.ts';
import { readNodePool } from './node-pool.ts';
import { type State, writeState } from './state.ts';
import { forceDelete, isOfBuild } from './workloads.ts';

/** The watches trigger the next step; polling covers what they miss, less often over time. */
const pollMs = 5_000;
const maxPollMs = 30_000;
/** A start fails after this long. */
const maxStartMs = 10 * 60_000;
/** Unless the pod is scheduled and has no problem: pulling a large image takes long. */
const maxPullMs = 30 * 60_000;

/** After this long the workspace starts without services that are not ready. */
const maxServiceWaitMs = 2 * 60_000;

/** One step toward the pod of `launch.buildId` running. */
export async function startStep(
  connection: Connection,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  before: State,
  context: StepContext,
  options: StartOptions,
): Promise<StepResult<Started>> {
  const cluster = connection.record.name;
  let state: State = { ...before, cluster, home: homeOf(spec.owner) };
  // Left over from an abandoned deletion or stop.
  for (const key of ['homeDisposition', 'homeRetained', 'snapshot', 'stoppingSince'] as const)
    delete state[key];
  try {
    noteRestore(spec, state);
    if (!state.namespace) {
      // Recorded before anything is created in it, so that another replica finds what a killed one began.
      state.namespace = await chooseNamespace(connection, spec);
      return {
        kind: 'pending',
        state: writeState(state),
        retryAfterMs: 0,
        location: { cluster, namespace: state.namespace },
      };
    }
    if (state.appliedBuild !== launch.buildId) {
      const applied = await applyTemplate(connection, spec, launch, state, context, options);
      if ('waits' in applied) return wait(applied.state, applied.waits, applied.afterMs);
      state = applied.state;
    }
    return await checkPod(connection, spec, launch, state, context, options);
  } catch (error) {
    if (error instanceof StepFailure) return { kind: 'failed', state: writeState(state), error: error.error };
    if (error instanceof NamespaceTerminating) return wait(state, error.message);
    throw error;
  }

  function wait(now: State, why: string, afterMs = pollMs): StepResult<never> {
    if (now.lastReason !== why) context.log(why);
    return {
      kind: 'pending',
      state: writeState({ ...now, lastReason: why }),
      retryAfterMs: afterMs,
      message: why,
      location: { cluster, namespace: now.namespace! },
    };
  }
}

/** Checks the progress of the pod, and explains what blocks it. */
async function checkPod(
  connection: Connection,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  before: State,
  context: StepContext,
  options: StartOptions,
): Promise<StepResult<Started>> {
  const { view } = connection;
  const namespace = before.namespace!;
  const state: State = { ...before };
  const location = { cluster: connection.record.name, namespace };
  const statefulSet = view.get('StatefulSet', namespace, 'workspace');
  const there = view.get('Namespace', '', namespace);
  const claim = view.get('PersistentVolumeClaim', namespace, 'home');
  const found = view.get('Pod', namespace, 'workspace-0');
  const pod = found && isOfBuild(found, launch.buildId) ? found : null;
  const status = pod && containerStatus(pod, 'workspace');
  const runs =
    pod !== null &&
    status?.state?.running !== undefined &&
    !pod.metadata.deletionTimestamp &&
    isOfNewestRevision(pod, statefulSet);
  // A pod that runs keeps its claim; one that does not run yet cannot use a claim that is being deleted.
  const hasClaim = claim !== null && (runs || !claim.metadata.deletionTimestamp);
  if (!there || there.metadata.deletionTimestamp || !statefulSet || !hasClaim) {
    // Deleted since it was applied: the next step applies it again.
    const { appliedBuild: _, ...rest } = state;
    return { kind: 'pending', state: writeState(rest), retryAfterMs: pollMs, location };
  }
  const volume = volumeOfClaim(claim);
  // A restored home stays the deleted workspace's until this one runs, as the start may still fail.
  if (volume && (runs || !state.restoring))
    await protectVolume(connection, spec, state, volume, options.installation);
  // The home must be protected before anybody works in it.
  if (runs && volume && state.protectedVolume === volume)
    return finishStart(connection, spec, state, pod, context, options);
  delete state.runningSince;
  // The previous build's pod: the new one is created only when it is gone.
  const old = !pod && found?.metadata.deletionTimestamp ? found : null;
  if (old) await forceDelete(connection.client, old, options.now(), context);
  return explainWait(connection, spec, state, { pod, old, claim, statefulSet }, context, options.now());
}

/**
 * False for a pod that its StatefulSet is about to replace: another replica may have begun this build with other server
 * URLs, and been killed before it had recorded that.
 */
function isOfNewestRevision(pod: Kube<'Pod'>, statefulSet: Kube<'StatefulSet'> | null): boolean {
  const { observedGeneration, updateRevision } = statefulSet?.status ?? {};
  return (
    observedGeneration === statefulSet?.metadata.generation &&
    pod.metadata.labels?.['controller-revision-hash'] === updateRevision
  );
}

/** Done, once the services of a running workspace are ready or were waited for long enough. */
async function finishStart(
  connection: Connection,
  spec: WorkspaceSpec,
  state: State,
  pod: Kube<'Pod'>,
  context: StepContext,
  options: Pick<StartOptions, 'now' | 'nodePoolLabel'>,
): Promise<StepResult<Started>> {
  const location = { cluster: connection.record.name, namespace: state.namespace! };
  const waits = await waitForServices(connection, spec, state, context, options.now());
  if (waits) {
    const { lastReason: message } = waits;
    return {
      kind: 'pending',
      state: writeState(waits),
      retryAfterMs: pollMs,
      location,
      ...(message && { message }),
    };
  }
  const { lastReason: _, restoring: _restored, runningSince: _runs, ...rest } = state;
  const node = pod.spec?.nodeName;
  context.log(`the pod runs on ${node}`);
  const nodePool = await readNodePool(connection, node, options.nodePoolLabel);
  return {
    kind: 'done',
    state: writeState({
      ...rest,
      podUid: pod.metadata.uid!,
      restarts: containerStatus(pod, 'workspace')?.restartCount ?? 0,
    }),
    location: { ...location, nodePool },
  };
}

/** The pod does not run yet: fails if waiting cannot help or has taken too long, and otherwise says what blocks it. */
async function explainWait(
  connection: Connection,
  spec: WorkspaceSpec,
  state: State,
  seen: {
    pod: Kube<'Pod'> | null;
    /** The terminating pod of an earlier build. */
    old: Kube<'Pod'> | null;
    claim: Kube<'PersistentVolumeClaim'> | null;
    statefulSet: Kube<'StatefulSet'>;
  },
  context: StepContext,
  now: Date,
): Promise<StepResult<Started>> {
  const namespace = state.namespace!;
  const since = new Date(state.appliedAt!);
  const { pod, claim } = seen;
  const explained = explain({
    pod: pod ?? seen.old,
    events: connection.view.list('Event', namespace),
    claims: claim ? [claim] : [],
    statefulSet: seen.statefulSet,
    since,
    now,
    ...(pod && (await readCrashLog(connection, namespace, pod, 'workspace'))),
  });
  const { startTimeout, kernelProfile } = sectionOf(spec);
  // The scheduler only reports a missing label; noded's annotation explains this one.
  const kernel =
    explained?.code === 'no-node-fits' && kernelProfile
      ? await explainKernelProfile(connection.client, kernelProfile).catch(() => null)
      : null;
  const reason = kernel ? { ...kernel, fatal: false } : explained;
  const waited = now.getTime() - since.getTime();
  const pulls = !reason && pod?.spec?.nodeName !== undefined;
  const maxMs = (startTimeout && parseDuration(startTimeout)) || (pulls ? maxPullMs : maxStartMs);
  if (waited > maxMs || reason?.fatal) {
    const { fatal: _, ...error } = reason ?? { ...startTimedOut(namespace, waited), fatal: true };
    return { kind: 'failed', state: writeState(state), error };
  }
  const text = reason && [reason.message, reason.detail].filter(Boolean).join(' ');
  if (text && text !== state.lastReason) context.log(text, 'warn');
  return {
    kind: 'pending',
    state: writeState({ ...state, ...(text && { lastReason: text }) }),
    ...(text && { message: text }),
    // A thousand pods waiting for nodes must not keep the server busy.
    retryAfterMs: Math.min(Math.max(Math.round(waited / 4), pollMs), maxPollMs),
    location: { cluster: connection.record.name, namespace },
  };
}

const startTimedOut = (namespace: string, waitedMs: number): ProviderError => ({
  code: 'start-timeout',
  message: `The pod did not start within ${Math.round(waitedMs / 60_000)} minutes, and the cluster reports no reason.`,
  hint: `Inspect it: kubectl -n ${namespace} describe pod workspace-0`,
  fault: 'system',
});

/**
 * Waits for the services of a running workspace: the state to wait with, or null when it need not wait. A service that
 * cannot start is logged, and does not block the workspace.
 */
async function waitForServices(
  connection: Connection,
  spec: WorkspaceSpec,
  before: State,
  context: StepContext,
  now: Date,
): Promise<State | null> {
  const namespace = before.namespace!;
  const section = sectionOf(spec);
  const since = new Date(before.appliedAt!);
  const pending = pendingServices(connection.view, namespace, section, since, now);
  if (pending.length === 0) return null;
  const runsSince = before.runningSince ?? now.toISOString();
  const overdue = now.getTime() - Date.parse(runsSince) > maxServiceWaitMs;
  const givesUp = overdue || pending.every(({ reason }) => reason?.fatal);
  const lines: string[] = [];
  for (const service of pending) {
    lines.push(describePendingService(service));
    const { lastLines } = service.pod
      ? await readCrashLog(connection, namespace, service.pod, service.name)
      : {};
    if (lastLines?.trim() && !service.reason?.detail?.includes(lastLines.trim()))
      lines.push(lastLines.trim());
  }
  const text = lines.join('\n');
  if (text !== before.lastReason) context.log(text, pending.some(({ reason }) => reason) ? 'warn' : 'info');
  if (!givesUp) return { ...before, runningSince: runsSince, lastReason: text };
  context.log(`the workspace starts without ${pending.map(({ name }) => name).join(', ')}`, 'warn');
  return null;
}

/** The last lines of the previous run of a container that was restarted. */
async function readCrashLog(
  { client }: Connection,
  namespace: string,
  pod: Kube<'Pod'>,
  container: string,
): Promise<{ lastLines?: string }> {
  if ((containerStatus(pod, container)?.restartCount ?? 0) === 0) return {};
  try {
    const lastLines = await client.logs(namespace, pod.metadata.name, {
      container,
      tailLines: 10,
      previous: true,
    });
    return { lastLines };
  } catch (error) {
    if (error instanceof KubeError) return {};
    throw error;
  }
}
