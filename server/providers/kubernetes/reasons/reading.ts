import type { KubeObject } from '../api/client.ts';

/**
 * Why a start does not get on, or why compute ended. `fatal`: waiting longer cannot help, only a person can;
 * anything else may pass by itself, and the cluster goes on trying.
 */
export interface Reason {
  code: string;
  message: string;
  detail?: string;
  hint?: string;
  fault: 'user' | 'system';
  fatal: boolean;
}

/** What Kubernetes says of a container that has ended. */
export interface Terminated {
  exitCode?: number;
  signal?: number;
  reason?: string;
  message?: string;
  finishedAt?: string;
}
interface State {
  waiting?: { reason?: string; message?: string };
  running?: { startedAt?: string };
  terminated?: Terminated;
}
export interface ContainerStatus {
  name: string;
  image?: string;
  ready?: boolean;
  started?: boolean;
  restartCount?: number;
  state?: State;
  lastState?: State;
}
export interface Resources {
  requests?: Record<string, string>;
  limits?: Record<string, string>;
}
interface ContainerSpec {
  name: string;
  image?: string;
  resources?: Resources;
  restartPolicy?: string;
}
export interface Condition {
  type: string;
  status: string;
  reason?: string;
  message?: string;
  lastTransitionTime?: string;
}

/** A pod, as far as reasons need it. */
export interface PodSnapshot {
  name: string;
  uid: string;
  deletedAt: string | undefined;
  spec: {
    nodeName?: string;
    containers: ContainerSpec[];
    initContainers?: ContainerSpec[];
    nodeSelector?: Record<string, string>;
    serviceAccountName?: string;
    imagePullSecrets?: { name: string }[];
  };
  status: { phase?: string; reason?: string; message?: string };
  condition(type: string): Condition | undefined;
  /** In the order of the spec. */
  inits: ContainerStatus[];
  containers: ContainerStatus[];
  specOf(container: string): ContainerSpec | undefined;
}

export function readPod(object: KubeObject): PodSnapshot {
  const spec = (object.spec ?? { containers: [] }) as PodSnapshot['spec'];
  const status = (object.status ?? {}) as PodSnapshot['status'] & {
    conditions?: Condition[];
    containerStatuses?: ContainerStatus[];
    initContainerStatuses?: ContainerStatus[];
  };
  // Statuses come in any order; the spec's is that in which things happen.
  const ordered = (specs: ContainerSpec[] = [], statuses: ContainerStatus[] = []) =>
    specs.flatMap(({ name }) => statuses.find((one) => one.name === name) ?? []);
  return {
    name: object.metadata.name,
    uid: object.metadata.uid ?? '',
    deletedAt: object.metadata.deletionTimestamp,
    spec,
    status,
    condition: (type) => status.conditions?.find((one) => one.type === type),
    inits: ordered(spec.initContainers, status.initContainerStatuses),
    containers: ordered(spec.containers, status.containerStatuses),
    specOf: (container) =>
      [...(spec.initContainers ?? []), ...spec.containers].find((one) => one.name === container),
  };
}

/** An event, of either API that events have. */
export interface EventRecord {
  reason: string;
  message: string;
  warning: boolean;
  /** When it was last seen, in ms. */
  at: number;
  of: { kind: string; name: string; uid: string };
  /** `kubelet`, `default-scheduler`, … */
  by: string;
}

interface RawEvent {
  reason?: string;
  type?: string;
  message?: string;
  note?: string;
  involvedObject?: Partial<EventRecord['of']>;
  regarding?: Partial<EventRecord['of']>;
  lastTimestamp?: string | null;
  firstTimestamp?: string | null;
  eventTime?: string | null;
  series?: { lastObservedTime?: string } | null;
  source?: { component?: string };
  reportingComponent?: string;
  reportingController?: string;
}

/** Oldest first; with `since` only those seen at or after it. */
export function readEvents(objects: KubeObject[], since?: Date): EventRecord[] {
  return objects
    .map((object) => {
      const raw = object as KubeObject & RawEvent;
      const of = raw.involvedObject ?? raw.regarding ?? {};
      const times = [
        raw.series?.lastObservedTime,
        raw.lastTimestamp,
        raw.eventTime,
        raw.firstTimestamp,
        object.metadata.creationTimestamp,
      ];
      return {
        reason: raw.reason ?? '',
        message: (raw.message ?? raw.note ?? '').trim(),
        warning: raw.type === 'Warning',
        at: Math.max(0, ...times.map((time) => (time ? Date.parse(time) : 0))),
        of: { kind: of.kind ?? '', name: of.name ?? '', uid: of.uid ?? '' },
        by: raw.source?.component || raw.reportingComponent || raw.reportingController || '',
      };
    })
    .filter((event) => !since || event.at >= since.getTime())
    .sort((a, b) => a.at - b.at);
}

/** The newest event that matches. */
export function newest(
  events: EventRecord[],
  matches: (event: EventRecord) => boolean,
): EventRecord | undefined {
  return events.findLast(matches);
}
