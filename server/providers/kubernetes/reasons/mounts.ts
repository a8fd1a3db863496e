import { type EventRecord, newest, type PodSnapshot, type Reason } from './reading.ts';

/** Why the volumes of a pod are not available on its node. Attaching comes before mounting. */
export function explainMounts(pod: PodSnapshot, events: EventRecord[]): Reason | null {
  const mine = events.filter((event) => event.of.uid === pod.uid);
  const attach = newest(mine, (event) => event.reason === 'FailedAttachVolume');
  if (attach) {
    const volume = /volume "([^"]+)"/.exec(attach.message)?.[1];
    const since = newest(
      mine,
      (event) =>
        event.reason === 'SuccessfulAttachVolume' &&
        event.at >= attach.at &&
        (!volume || event.message.includes(volume)),
    );
    if (!since) return explainAttach(attach.message, volume);
  }
  const failed = mine.filter((event) => ['FailedMount', 'FailedMapVolume'].includes(event.reason));
  // A timeout follows from an earlier failure.
  const event =
    failed.findLast((one) => !/timed out waiting for the condition/.test(one.message)) ?? failed.at(-1);
  return event ? explainMount(event.message) : null;
}

function explainAttach(said: string, volume = ''): Reason {
  if (/Multi-Attach error/.test(said)) {
    const pods = /used by pod\(s\) (.+)$/.exec(said)?.[1];
    return {
      code: 'volume-attached-elsewhere',
      message: `The volume ${volume} is still attached to another node${pods ? `, for ${pods}` : ''}.`,
      detail: said,
      hint: 'It is released when the pod that used it ends. If its node is down, that takes about 6 minutes, or until an administrator removes the node.',
      fault: 'system',
      fatal: false,
    };
  }
  return {
    code: 'volume-not-attached',
    message: `The volume ${volume} cannot be attached to the node.`,
    detail: said,
    hint: 'The cluster retries by itself. Ask an administrator to check the storage.',
    fault: 'system',
    fatal: false,
  };
}

function explainMount(said: string): Reason {
  const missing = /(secret|configmap) "([^"]+)" not found/i.exec(said);
  if (missing)
    return {
      code: 'volume-source-missing',
      message: `The ${missing[1]!.toLowerCase()} ${missing[2]} that the workspace mounts does not exist.`,
      detail: said,
      hint: 'Add it to the template, or remove the volume. The cluster retries by itself.',
      fault: 'user',
      fatal: false,
    };
  const volume = /volume "([^"]+)"/.exec(said)?.[1] ?? /unmounted volumes=\[([^\]]+)\]/.exec(said)?.[1] ?? '';
  if (/already mounted|in use|exclusively attached|ReadWriteOncePod/i.test(said))
    return {
      code: 'volume-attached-elsewhere',
      message: `The volume ${volume} is still in use elsewhere.`,
      detail: said,
      hint: 'It is released when the pod that used it ends.',
      fault: 'system',
      fatal: false,
    };
  return {
    code: 'volume-not-mounted',
    message: `The volume ${volume} cannot be mounted on the node.`,
    detail: said,
    hint: 'The cluster retries by itself. Ask an administrator to check the storage.',
    fault: 'system',
    fatal: false,
  };
}

/** Why the pod's sandbox (usually its network) cannot be created. */
export function explainSandbox(pod: PodSnapshot, events: EventRecord[]): Reason | null {
  const event = newest(
    events,
    (one) =>
      one.of.uid === pod.uid &&
      (one.reason === 'FailedCreatePodSandBox' ||
        one.reason === 'NetworkNotReady' ||
        (one.reason === 'FailedSync' && one.warning)),
  );
  if (!event) return null;
  const said = event.message;
  const node = pod.spec.nodeName ?? '';
  const base = { detail: said, fault: 'system' as const, fatal: false };
  if (/no IP addresses available|failed to assign an IP|out of IP|no addresses available/i.test(said))
    return {
      ...base,
      code: 'no-pod-address',
      message: `The node ${node} has no address left for the pod.`,
      hint: "Ask an administrator to enlarge the cluster's pod network. The cluster retries by itself.",
    };
  if (/RuntimeHandler|runtime handler|RuntimeClass|no runtime for/.test(said))
    return {
      ...base,
      code: 'runtime-class-missing',
      message: `The node ${node} does not have the workspace's runtime class.`,
      hint: 'Name another in the template, or choose other nodes.',
      fault: 'user',
    };
  if (/network|cni/i.test(said))
    return {
      ...base,
      code: 'pod-network-failed',
      message: `The network of the pod cannot be set up on the node ${node}.`,
      hint: 'Ask an administrator to check the network plugin (CNI) of the node. The cluster retries by itself.',
    };
  return {
    ...base,
    code: 'sandbox-failed',
    message: `The node ${node} cannot create the pod's sandbox.`,
    hint: 'Ask an administrator to check the container runtime of the node. The cluster retries by itself.',
  };
}
