import type { KubernetesSection } from '@cde/api/template-file.ts';
import type { KubeObject, PodSpec } from '../api/models.ts';
import { annotations } from '../api/names.ts';
import { hashOf } from './hash.ts';
import type { MakeObject } from './make.ts';
import { noPrivilegeEscalation, placement, resourcesOf, seccomp, sharedGroup } from './pod.ts';

type Service = KubernetesSection['services'][number];

export const appOf = (service: Service) => `service-${service.name}`;
export const claimOf = (service: Service) => `${service.name}-data`;

/** The objects of a service in the template's short form. `own`: the labels by which its pod is watched. */
export function serviceObjects(
  service: Service,
  section: KubernetesSection,
  make: MakeObject,
  own: Record<string, string>,
): KubeObject[] {
  const app = appOf(service);
  const spec = servicePod(service, section);
  return [
    ...(service.storage
      ? [
          make('PersistentVolumeClaim', claimOf(service), {
            spec: {
              accessModes: ['ReadWriteOnce'],
              resources: { requests: { storage: String(service.storage.size) } },
            },
          }),
        ]
      : []),
    make('Deployment', service.name, {
      spec: {
        replicas: 1,
        // Two pods cannot mount the volume at once.
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
          make('Service', service.name, {
            spec: {
              selector: { app },
              // A client that connects early gets the service's own error instead of a DNS failure.
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

export function servicePod(service: Service, section: KubernetesSection): PodSpec {
  const { ready, storage } = service;
  const restricted = section.podSecurity === 'restricted';
  const uid = service.user === undefined || service.user === 'image' ? null : Number(service.user);
  const security = {
    ...noPrivilegeEscalation(section),
    ...(restricted && {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      runAsNonRoot: true,
    }),
    ...(uid !== null && { runAsUser: uid }),
  };
  return {
    enableServiceLinks: false,
    // It does not need the API server.
    automountServiceAccountToken: false,
    ...placement(section),
    securityContext: {
      // A new volume belongs to root: without fsGroup no other user could write to it.
      ...(storage &&
        (restricted || uid) && { fsGroup: uid ?? sharedGroup, fsGroupChangePolicy: 'OnRootMismatch' }),
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
