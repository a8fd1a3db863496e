import type { KubernetesSection } from '@cde/api/templates.ts';
import type { KubeObject } from './client.ts';
import type { ClusterView } from './connections.ts';
import { hashOf } from './hash.ts';
import { annotations } from './names.ts';
import { anyGroup, confined, placement, resourcesOf, seccomp } from './pod.ts';
import { newest, readEvents } from './reasons/reading.ts';
import { explain, explainRefused, type Reason } from './reasons.ts';

type Service = KubernetesSection['services'][number];
type Make = (apiVersion: string, kind: string, name: string, rest: object, more?: object) => KubeObject;

const appOf = (service: Service) => `service-${service.name}`;
const claimOf = (service: Service) => `${service.name}-data`;

/** A service of the short form: its pod, its volume, its name in DNS. `own`: the labels by which its pod is watched. */
export function serviceObjects(
  service: Service,
  section: KubernetesSection,
  make: Make,
  own: Record<string, string>,
): KubeObject[] {
  const app = appOf(service);
  const spec = servicePod(service, section);
  return [
    ...(service.storage
      ? [
          make('v1', 'PersistentVolumeClaim', claimOf(service), {
            spec: {
              accessModes: ['ReadWriteOnce'],
              resources: { requests: { storage: String(service.storage.size) } },
            },
          }),
        ]
      : []),
    make('apps/v1', 'Deployment', service.name, {
      spec: {
        replicas: 1,
        // Two pods cannot have one volume.
        strategy: { type: 'Recreate' },
        selector: { matchLabels: { app } },
        template: {
          metadata: { labels: { ...own, app }, annotations: { [annotations.settings]: hashOf(spec) } },
          spec,
        },
      },
    }),
    ...(service.ports.length > 0
      ? [
          make('v1', 'Service', service.name, {
            spec: {
              selector: { app },
              // Whoever asks it early is refused by itself, and sees why.
              publishNotReadyAddresses: true,
              ports: service.ports.map((port) => ({
                name: `p${port}`,
                port: Number(port),
                targetPort: Number(port),
              })),
            },
          }),
        ]
      : []),
  ];
}

function servicePod(service: Service, section: KubernetesSection): object {
  const { ready, storage } = service;
  const restricted = section.podSecurity === 'restricted';
  const uid = service.user === undefined || service.user === 'image' ? null : Number(service.user);
  const security = {
    ...confined(section),
    ...(restricted && {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      runAsNonRoot: true,
    }),
    ...(uid !== null && { runAsUser: uid }),
  };
  return {
    enableServiceLinks: false,
    // It has no business with the API server.
    automountServiceAccountToken: false,
    ...placement(section),
    securityContext: {
      // Root makes a fresh volume its own; nobody else could write to it.
      ...(storage &&
        (restricted || uid) && { fsGroup: uid ?? anyGroup, fsGroupChangePolicy: 'OnRootMismatch' }),
      ...seccomp(section),
    },
    containers: [
      {
        name: service.name,
        image: service.image,
        ...(section.pullPolicy && { imagePullPolicy: section.pullPolicy }),
        ...(service.command && { command: service.command }),
        ...(service.args && { args: service.args }),
        env: Object.entries(service.env).map(([name, value]) => ({ name, value: String(value) })),
        ports: service.ports.map((port) => ({ containerPort: Number(port) })),
        resources: resourcesOf(service),
        ...(Object.keys(security).length > 0 && { securityContext: security }),
        ...(ready && {
          readinessProbe: {
            ...(ready.command
              ? { exec: { command: ready.command } }
              : { tcpSocket: { port: Number(ready.port) } }),
            periodSeconds: 2,
            timeoutSeconds: 5,
          },
        }),
        ...(storage && { volumeMounts: [{ name: 'data', mountPath: storage.path }] }),
      },
    ],
    ...(storage && {
      volumes: [{ name: 'data', persistentVolumeClaim: { claimName: claimOf(service) } }],
    }),
  };
}

/** A service that does not run, or is not ready; `reason` is null where the cluster says nothing against it. */
export interface Lagging {
  name: string;
  /** The one that counts; null while there is none. */
  pod: KubeObject | null;
  reason: Reason | null;
}

/** The services of the template that are not ready, as the watches know it. `since`: when they were applied. */
export function laggingServices(
  view: ClusterView,
  namespace: string,
  section: KubernetesSection,
  since: Date,
  now: Date,
): Lagging[] {
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
      : refused(service, events, since);
    return [{ name: service.name, pod, reason }];
  });
}

const isReady = ({ status }: KubeObject) =>
  ((status ?? {}) as { conditions?: { type: string; status: string }[] }).conditions?.some(
    ({ type, status: is }) => type === 'Ready' && is === 'True',
  ) ?? false;

/** There is no pod: the ReplicaSet that should make it says why. */
function refused(service: Service, objects: KubeObject[], since: Date): Reason | null {
  const failed = newest(
    // Events tell whole seconds.
    readEvents(objects, new Date(Math.floor(since.getTime() / 1000) * 1000)),
    ({ reason, of }) =>
      reason === 'FailedCreate' &&
      of.kind === 'ReplicaSet' &&
      of.name.replace(/-[a-z0-9]+$/, '') === service.name,
  );
  return failed
    ? explainRefused('pod of the service', failed.message.replace(/^Error creating: /, ''))
    : null;
}

/** In a sentence or more. */
export function lagInWords({ name, reason }: Lagging): string {
  if (!reason) return `The service ${name} is not ready yet.`;
  return [`The service ${name}: ${reason.message}`, reason.detail].filter(Boolean).join(' ');
}
