import type { EndCause } from '../../provider.ts';
import { describeExit, describeOutOfMemory, isOutOfMemory } from './containers.ts';
import { type EventRecord, newest, type PodSnapshot } from './reading.ts';

/** Why compute ended: a code to decide by, and a sentence without its full stop. */
export interface End {
  cause: EndCause;
  message: string;
}
const end = (cause: EndCause, message: string): End => ({ cause, message });

/** Which resource an evicted pod was evicted for, in words. */
function describePressure(said: string): string {
  const low = /low on resource: (\S+?)\./.exec(said)?.[1];
  const used = /was using ([^,]+), request is ([^,]+),/.exec(said);
  const usage = used ? `; it used ${used[1]}, with ${used[2]} requested` : '';
  if (low === 'memory') return `its memory ran low${usage}`;
  if (low === 'ephemeral-storage') return `its disk ran full${usage}`;
  if (low === 'inodes') return 'its disk ran out of inodes';
  if (low === 'pids') return 'it ran out of process ids';
  if (low) return `it was low on ${low}${usage}`;
  const condition = /had condition: \[?([^\].]+)/.exec(said)?.[1];
  if (condition === 'MemoryPressure') return 'its memory ran low';
  if (condition === 'DiskPressure') return 'its disk ran full';
  if (condition === 'PIDPressure') return 'it ran out of process ids';
  return said.replace(/\.?\s*$/, '') || 'of its pressure';
}

/** Why an evicted pod was; the limit that it passed, or what the node lacked. */
function describeEviction(node: string, said: string): string {
  const empty = /EmptyDir volume "([^"]+)" exceeds the limit "([^"]+)"/.exec(said);
  if (empty) return `Evicted: its scratch volume ${empty[1]} grew beyond ${empty[2]}`;
  const own =
    /exceeded its local ephemeral storage limit "([^"]+)"|total limit of containers ([^\s]+?)\.? *$/.exec(
      said,
    );
  if (own) return `Evicted: it wrote more than ${own[1] ?? own[2]} outside of the home`;
  return `Evicted from ${node}: ${describePressure(said)}`;
}

/** What the cluster did to the pod; null if it did nothing. */
export function describeDisruption(pod: PodSnapshot, events: EventRecord[] = []): End | null {
  const node = pod.spec.nodeName ? `the node ${pod.spec.nodeName}` : 'its node';
  const Node = node[0]!.toUpperCase() + node.slice(1);
  const { status } = pod;
  const said = status.message ?? '';
  const mine = events.filter((event) => event.of.uid === pod.uid);
  const lostEvent = newest(mine, (event) => event.reason === 'NodeNotReady');
  if (status.reason === 'Evicted') return end('evicted', describeEviction(node, said));
  if (status.reason === 'NodeLost') return end('node-lost', `${Node} was lost`);
  if (status.reason === 'Terminated' || status.reason === 'NodeShutdown' || status.reason === 'Shutdown')
    return end('node-restarted', `${Node} was shut down`);
  if (status.reason === 'Preempting')
    return end('preempted', `Preempted on ${node} by a pod that the cluster cannot do without`);
  if (status.reason === 'DeadlineExceeded')
    return end('disrupted', 'It ran longer than its pod may (activeDeadlineSeconds)');
  const short = /^OutOf(\w+)/.exec(status.reason ?? '');
  if (short)
    return end(
      'node-refused',
      `${Node} had no ${short[1] === 'pods' ? 'room for another pod' : `${short[1]} left`}`,
    );
  if (status.reason === 'NodeAffinity')
    return end('node-refused', `${Node} no longer has the labels that the pod asks for`);
  if (status.reason === 'UnexpectedAdmissionError' || status.reason === 'SysctlForbidden')
    return end('node-refused', `${Node} refused the pod: ${said.replace(/\.$/, '')}`);
  const target = pod.condition('DisruptionTarget');
  if (target?.status === 'True') {
    switch (target.reason) {
      case 'PreemptionByScheduler':
        return end('preempted', `Preempted on ${node} by a pod of higher priority`);
      case 'EvictionByEvictionAPI':
        return end('node-drained', `${Node} was drained`);
      case 'DeletionByTaintManager':
        return end(
          'node-lost',
          lostEvent ? `${Node} was lost (not ready)` : `${Node} was lost, or closed by a taint`,
        );
      case 'DeletionByPodGC':
        return end(
          'node-lost',
          /no longer exists/.test(target.message ?? '')
            ? `${Node} was removed from the cluster`
            : `${Node} was lost or out of service`,
        );
      case 'TerminationByKubelet': {
        const why = target.message ?? '';
        if (/shutdown/.test(why)) return end('node-restarted', `${Node} was shut down`);
        if (/preempted/i.test(why))
          return end('preempted', `Preempted on ${node} by a pod that the cluster cannot do without`);
        return end('evicted', describeEviction(node, why));
      }
      default:
        return end('disrupted', `Ended on ${node}: ${target.message || target.reason || 'a disruption'}`);
    }
  }
  if (lostEvent && isLost(pod, mine, lostEvent)) return end('node-lost', `${Node} was lost (not ready)`);
  return null;
}

/** Whether a node that was said not to be ready still is not: nothing of the pod has been heard since. */
export function isLost(pod: PodSnapshot, mine: EventRecord[], lost: EventRecord): boolean {
  const ready = pod.condition('Ready');
  if (ready?.status === 'True') return false;
  // The pod's condition is changed at the same moment; times are whole seconds.
  if (ready?.lastTransitionTime && Date.parse(ready.lastTransitionTime) > lost.at + 2_000) return false;
  return !mine.some((event) => event.by === 'kubelet' && event.at > lost.at + 1_000);
}

/** Why compute ended: what happened to the pod as a whole comes first, then what its process did. */
export function describeEnd(pod: PodSnapshot, events: EventRecord[] = []): End {
  const disruption = describeDisruption(pod, events);
  if (disruption) return disruption;
  const [main] = pod.containers;
  const ended = main?.state?.terminated ?? main?.lastState?.terminated;
  if (main && isOutOfMemory(ended))
    return end('out-of-memory', `The workspace ran ${describeOutOfMemory(pod, main)}`);
  // Killed because the pod was deleted: the deletion is the cause.
  if (pod.deletedAt) return end('removed', 'The pod was deleted, not by cde');
  if (ended?.reason === 'ContainerStatusUnknown')
    return end('unknown', 'The end of the pod was not seen; its node may have restarted');
  if (ended?.reason === 'StartError') return end('agent-not-started', 'The agent could not be started');
  if (ended) return end('agent-exited', `The agent ${describeExit(ended)}`);
  if (pod.status.phase === 'Failed') return end('unknown', pod.status.message || 'The pod failed');
  return end('unknown', 'The pod ended');
}

/** Of a pod that is gone: the newest thing that events tell of its end. Without a uid, of any of its name. */
export function describeGone(
  pod: { name: string; uid?: string | undefined },
  events: EventRecord[],
): End | null {
  const mine = events.filter(
    ({ of }) => of.kind === 'Pod' && of.name === pod.name && (!pod.uid || of.uid === pod.uid),
  );
  const last = newest(
    mine,
    (event) =>
      !/^Cancelling/.test(event.message) &&
      ['Evicted', 'Preempted', 'Preempting', 'TaintManagerEviction', 'NodeNotReady', 'NodeShutdown'].includes(
        event.reason,
      ),
  );
  switch (last?.reason) {
    case 'Evicted':
      return end('evicted', describeEviction('its node', last.message));
    case 'Preempted': {
      const node = /on node (\S+)/.exec(last.message)?.[1];
      return end('preempted', `Preempted${node ? ` on the node ${node}` : ''} by a pod of higher priority`);
    }
    case 'Preempting':
      return end('preempted', 'Preempted by a pod that the cluster cannot do without');
    case 'TaintManagerEviction':
      return end(
        'node-lost',
        mine.some((event) => event.reason === 'NodeNotReady')
          ? 'Its node was lost (not ready)'
          : 'Its node was lost, or closed by a taint',
      );
    case 'NodeNotReady':
      return end('node-lost', 'Its node was lost (not ready)');
    case 'NodeShutdown':
      return end('node-restarted', 'Its node was shut down');
    default:
      return null;
  }
}
