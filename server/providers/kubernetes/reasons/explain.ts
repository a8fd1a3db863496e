import type { Kube } from '../api/models.ts';
import { explainRejection } from './admission.ts';
import { explainClaims, unboundClaim } from './claims.ts';
import { explainContainers } from './containers.ts';
import { describeDisruption, describeEnd, describeGone, type End, isLost } from './ends.ts';
import { explainMounts, explainSandbox } from './mounts.ts';
import { type EventRecord, newest, type PodSnapshot, type Reason, readEvents, readPod } from './reading.ts';
import { explainUnschedulable } from './scheduling.ts';

/** The progress of a start, from the watches. */
export interface Start {
  pod: Kube<'Pod'> | null;
  /** Of the namespace, any order. */
  events: Kube<'Event'>[];
  /** The claims that the pod mounts. */
  claims: Kube<'PersistentVolumeClaim'>[];
  /** The controller of the pod. */
  statefulSet: Kube<'StatefulSet'> | null;
  /** The end of the log of the container that crashed, if it was read. */
  lastLines?: string;
  /** When the objects were applied: earlier rejections do not concern them. */
  since?: Date;
  now?: Date;
}

/** Within this time the controller has tried to create the pod from the applied objects: later rejections are final. */
const retryMs = 15_000;

/**
 * What blocks a start, with the cluster's own messages; null if nothing does or nothing is known. It names the first cause, not
 * its consequences: the stages of a start are checked in order, and those that are over are skipped.
 */
export function explain(input: Start): Reason | null {
  const events = readEvents(input.events);
  if (!input.pod) return explainMissingPod(input, events);
  const pod = readPod(input.pod);
  const endReason = explainEnded(pod, events);
  if (endReason) return endReason;
  const lost = input.claims.find(({ status }) => status?.phase === 'Lost');
  if (lost) return explainClaims([lost], events);
  if (!pod.spec.nodeName) return explainUnscheduled(pod, input.claims, events);
  // Once a container was started, volumes and sandbox exist, regardless of old events.
  const hasStarted = [...pod.inits, ...pod.containers].some(
    ({ state, lastState }) =>
      state?.running ||
      state?.terminated ||
      lastState?.terminated ||
      (state?.waiting && !['ContainerCreating', 'PodInitializing'].includes(state.waiting.reason ?? '')),
  );
  const prepared = hasStarted || pod.condition('PodReadyToStartContainers')?.status === 'True';
  if (!prepared) {
    const reason = explainMounts(pod, events) ?? explainSandbox(pod, events);
    if (reason) return reason;
  }
  return explainContainers(pod, events, input.lastLines);
}

/** Why compute ended or was replaced. The namespace's events tell more about its node. */
export function explainEnd(pod: Kube<'Pod'>, events: Kube<'Event'>[] = []): End {
  return describeEnd(readPod(pod), readEvents(events));
}

/**
 * Why a pod ended that is gone or was replaced under the same name, according to its events: a StatefulSet replaces an evicted
 * pod within milliseconds. Null if there are none.
 */
export function explainGone(
  pod: { name: string; uid?: string | undefined },
  events: Kube<'Event'>[],
): End | null {
  return describeGone(pod, readEvents(events));
}

/** There is no pod: its controller says why, or a claim does. */
function explainMissingPod({ statefulSet, claims, since, now }: Start, events: EventRecord[]): Reason | null {
  if (statefulSet) {
    const { status, metadata } = statefulSet;
    const seen = status?.observedGeneration ?? 0;
    const mine = events.filter(
      (event) =>
        event.of.kind === 'StatefulSet' &&
        event.of.name === metadata.name &&
        (!event.of.uid || event.of.uid === metadata.uid),
    );
    const failed = newest(mine, (event) => event.reason === 'FailedCreate');
    const made = newest(mine, (event) => event.reason === 'SuccessfulCreate');
    // If its controller has not seen the newest version yet, its events concern the one before.
    const current = seen >= (metadata.generation ?? 0) && (!since || (failed?.at ?? 0) >= wholeSecond(since));
    if (failed && current && failed.at >= (made?.at ?? 0)) {
      const match =
        /^create (?:Pod (\S+)|Claim (\S+) for Pod \S+) in StatefulSet \S+ failed error: (.*)$/is.exec(
          failed.message,
        );
      const what = match?.[2] ? `volume claim ${match[2]}` : `pod ${match?.[1] ?? ''}`.trim();
      const reason = explainRejection(what, match?.[3] ?? failed.message);
      // Event times are whole seconds: one of the same second can concern the version before.
      const sure =
        !since || failed.at > since.getTime() || (now && now.getTime() - since.getTime() > retryMs) || false;
      return { ...reason, fatal: reason.fatal && sure };
    }
  }
  return explainClaims(claims, events);
}
const wholeSecond = (moment: Date) => Math.floor(moment.getTime() / 1000) * 1000;

function explainEnded(pod: PodSnapshot, events: EventRecord[]): Reason | null {
  const disruption = describeDisruption(pod, events);
  if (disruption) {
    const lost = newest(events, (event) => event.of.uid === pod.uid && event.reason === 'NodeNotReady');
    const isNodeLost =
      lost !== undefined &&
      isLost(
        pod,
        events.filter(({ of }) => of.uid === pod.uid),
        lost,
      );
    if (pod.status.reason === 'SysctlForbidden')
      return {
        code: 'node-refused',
        message: `${disruption.message}.`,
        hint: "An administrator can allow it on the nodes (kubelet's allowedUnsafeSysctls), or the template does without.",
        fault: 'user',
        fatal: true,
      };
    if (pod.deletedAt && !isNodeLost)
      return {
        code: 'pod-ending',
        message: `${disruption.message}; its pod is still ending.`,
        hint: 'A new one is created once it is gone.',
        fault: 'system',
        fatal: false,
      };
    return {
      code: isNodeLost ? 'node-lost' : pod.status.reason === 'Evicted' ? 'evicted' : 'disrupted',
      message: `${disruption.message}.`,
      detail: pod.status.message ?? pod.condition('DisruptionTarget')?.message ?? lost?.message ?? '',
      hint: isNodeLost
        ? 'If the node comes back, the pod continues there. Otherwise it moves after some minutes, or when an administrator removes the node.'
        : 'The cluster creates a new pod by itself.',
      fault: 'system',
      fatal: false,
    };
  }
  if (pod.deletedAt)
    return {
      code: 'pod-ending',
      message: `The pod ${pod.name} is still ending${pod.spec.nodeName ? ` on the node ${pod.spec.nodeName}` : ''}.`,
      hint: 'A new one is created once it is gone.',
      fault: 'system',
      fatal: false,
    };
  return null;
}

/** It has no node yet: volumes are checked first, then the scheduler's message. */
function explainUnscheduled(pod: PodSnapshot, claims: Start['claims'], events: EventRecord[]): Reason | null {
  const scheduled = pod.condition('PodScheduled');
  const said =
    scheduled?.message ??
    newest(events, (event) => event.of.uid === pod.uid && event.reason === 'FailedScheduling')?.message ??
    '';
  if (scheduled?.reason === 'SchedulingGated')
    return {
      code: 'scheduling-gated',
      message: 'Something in the cluster holds the pod back (scheduling gates).',
      detail: JSON.stringify(pod.spec.schedulingGates ?? said),
      hint: 'Ask a cluster administrator what sets scheduling gates on pods.',
      fault: 'system',
      fatal: false,
    };
  const claim = explainClaims(claims, events);
  if (claim) return claim;
  if (/unbound immediate PersistentVolumeClaims/.test(said)) return unboundClaim(claims, said);
  return said ? explainUnschedulable(pod, said) : null;
}
