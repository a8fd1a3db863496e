import type { Container, ContainerStatus, Kube, PodSpec } from '../api/models.ts';

/**
 * What blocks a start, or why compute ended. `fatal`: waiting does not help, and a person has to act. Anything else can
 * resolve itself, as the cluster keeps trying.
 */
export interface Reason {
  code: string;
  message: string;
  detail?: string;
  hint?: string;
  fault: 'user' | 'system';
  fatal: boolean;
}

type PodStatus = NonNullable<Kube<'Pod'>['status']>;
type PodCondition = NonNullable<PodStatus['conditions']>[number];
/** How a container ended. */
export type Terminated = NonNullable<NonNullable<ContainerStatus['state']>['terminated']>;

/** A pod with its statuses in the order in which its containers start. */
export interface PodSnapshot {
  name: string;
  uid: string;
  deletedAt: string | undefined;
  spec: PodSpec;
  status: PodStatus;
  condition(type: string): PodCondition | undefined;
  inits: ContainerStatus[];
  containers: ContainerStatus[];
  specOf(container: string): Container | undefined;
}

export function readPod({ metadata, spec = { containers: [] }, status = {} }: Kube<'Pod'>): PodSnapshot {
  // Statuses are in any order; containers start in that of the spec.
  const ordered = (specs: Container[] = [], statuses: ContainerStatus[] = []) =>
    specs.flatMap(({ name }) => statuses.find((one) => one.name === name) ?? []);
  return {
    name: metadata.name,
    uid: metadata.uid ?? '',
    deletedAt: metadata.deletionTimestamp,
    spec,
    status,
    condition: (type) => status.conditions?.find((one) => one.type === type),
    inits: ordered(spec.initContainers, status.initContainerStatuses),
    containers: ordered(spec.containers, status.containerStatuses),
    specOf: (container) =>
      [...(spec.initContainers ?? []), ...spec.containers].find((one) => one.name === container),
  };
}

/** What reasons need of an event. */
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

/** Oldest first; with `since` only those seen at or after it. */
export function readEvents(events: Kube<'Event'>[], since?: Date): EventRecord[] {
  return events
    .map(({ metadata, involvedObject: of, ...event }) => {
      const times = [
        event.series?.lastObservedTime,
        event.lastTimestamp,
        event.eventTime,
        event.firstTimestamp,
        metadata.creationTimestamp,
      ];
      return {
        reason: event.reason ?? '',
        message: (event.message ?? '').trim(),
        warning: event.type === 'Warning',
        at: Math.max(0, ...times.map((time) => (time ? Date.parse(time) : 0))),
        of: { kind: of.kind ?? '', name: of.name ?? '', uid: of.uid ?? '' },
        by: event.source?.component || event.reportingComponent || '',
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
