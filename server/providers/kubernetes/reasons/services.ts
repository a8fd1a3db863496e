import type { KubernetesSection } from '@cde/api/templates.ts';
import type { KubeObject } from '../api/client.ts';
import type { ClusterView } from '../api/connections.ts';
import { annotations } from '../api/names.ts';
import { hashOf } from '../objects/hash.ts';
import { appOf, claimOf, servicePod } from '../objects/services.ts';
import { explainRejection } from './admission.ts';
import { explain } from './explain.ts';
import { newest, type Reason, readEvents } from './reading.ts';

type Service = KubernetesSection['services'][number];

/** A service that does not run, or is not ready; `reason` is null where the cluster says nothing against it. */
export interface PendingService {
  name: string;
  /** The one that counts; null while there is none. */
  pod: KubeObject | null;
  reason: Reason | null;
}

/** The services of the template that are not ready, as the watches know it. `since`: when they were applied. */
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
        !['Failed', 'Succeeded'].includes((status as { phase?: string } | undefined)?.phase ?? ''),
    );
    if (current.some(isReady)) return [];
    const pod = current[0] ?? own.find(({ metadata }) => metadata.deletionTimestamp) ?? null;
    const claim = service.storage && view.get('PersistentVolumeClaim', namespace, claimOf(service));
    const reason = pod
      ? explain({ pod, events, claims: claim ? [claim] : [], statefulSet: null, since, now })
      : explainMissingPod(service, events, since);
    return [{ name: service.name, pod, reason }];
  });
}

const isReady = ({ status }: KubeObject) =>
  ((status ?? {}) as { conditions?: { type: string; status: string }[] }).conditions?.some(
    ({ type, status: is }) => type === 'Ready' && is === 'True',
  ) ?? false;

/** There is no pod: the ReplicaSet that should make it says why. */
function explainMissingPod(service: Service, objects: KubeObject[], since: Date): Reason | null {
  const failed = newest(
    // Events tell whole seconds.
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

/** In a sentence or more. */
export function describePendingService({ name, reason }: PendingService): string {
  if (!reason) return `The service ${name} is not ready yet.`;
  return [`The service ${name}: ${reason.message}`, reason.detail].filter(Boolean).join(' ');
}
