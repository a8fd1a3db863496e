import type { KubernetesSection } from '@cde/api/template-file.ts';
import type { ClusterView } from '../api/connections.ts';
import { hasCondition, type Kube } from '../api/models.ts';
import { annotations } from '../api/names.ts';
import { hashOf } from '../objects/hash.ts';
import { appOf, claimOf, servicePod } from '../objects/services.ts';
import { explainRejection } from './admission.ts';
import { explain } from './explain.ts';
import { newest, type Reason, readEvents } from './reading.ts';

type Service = KubernetesSection['services'][number];

/** A service that is not ready; `reason` is null if the cluster reports no problem. */
export interface PendingService {
  name: string;
  /** The pod of the current settings, or a terminating one; null while there is none. */
  pod: Kube<'Pod'> | null;
  reason: Reason | null;
}

/** The services of the template that are not ready. `since`: when they were applied. */
export function pendingServices(
  view: ClusterView,
  namespace: string,
  section: KubernetesSection,
  since: Date,
  now: Date,
): PendingService[] {
  if (section.services.length === 0) return [];
  const pods = view.list('Pod', namespace);
  const events = view.list('Event', namespace);
  return section.services.flatMap((service) => {
    const settings = hashOf(servicePod(service, section));
    const own = pods.filter(({ metadata }) => metadata.labels?.app === appOf(service));
    const current = own.filter(
      ({ metadata, status }) =>
        !metadata.deletionTimestamp &&
        metadata.annotations?.[annotations.settings] === settings &&
        !['Failed', 'Succeeded'].includes(status?.phase ?? ''),
    );
    if (current.some((pod) => hasCondition(pod, 'Ready'))) return [];
    const pod = current[0] ?? own.find(({ metadata }) => metadata.deletionTimestamp) ?? null;
    const claim = service.storage && view.get('PersistentVolumeClaim', namespace, claimOf(service));
    const reason = pod
      ? explain({ pod, events, claims: claim ? [claim] : [], statefulSet: null, since, now })
      : explainMissingPod(service, events, since);
    return [{ name: service.name, pod, reason }];
  });
}

/** Without a pod, the ReplicaSet that should create it reports why. */
function explainMissingPod(service: Service, objects: Kube<'Event'>[], since: Date): Reason | null {
  const failed = newest(
    // The times of events are whole seconds.
    readEvents(objects, new Date(Math.floor(since.getTime() / 1000) * 1000)),
    ({ reason, of }) =>
      reason === 'FailedCreate' &&
      of.kind === 'ReplicaSet' &&
      of.name.replace(/-[a-z0-9]+$/, '') === service.name,
  );
  return failed
    ? explainRejection('pod of the service', failed.message.replace(/^Error creating: /, ''))
    : null;
}

/** In one or more sentences. */
export function describePendingService({ name, reason }: PendingService): string {
  if (!reason) return `The service ${name} is not ready yet.`;
  return [`The service ${name}: ${reason.message}`, reason.detail].filter(Boolean).join(' ');
}
