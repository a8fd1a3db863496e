import { createHash } from 'node:crypto';
import type { KubernetesBuilder, KubernetesSection } from '@cde/api/templates.ts';
import type { z } from 'zod';
import { parseQuantity } from '../../quantity.ts';
import type { KubeObject } from '../api/client.ts';
import { annotations } from '../api/names.ts';
import type { MakeObject } from './make.ts';
import { type Destination, egressRule } from './network.ts';
import { placement, resourcesOf } from './pod.ts';

/** What the builder of a namespace is called, and where it listens. */
export const builderNames = {
  app: 'builder',
  pod: 'builder-0',
  container: 'buildkitd',
  port: 1234,
  cache: 'builder-cache',
  policy: 'cde-builder',
} as const;

/** Where neither the template nor the server names an image; the rootless one has `-rootless` at its end. */
const defaultBuilderImage = 'moby/buildkit:v0.31.0';

/** The user of the rootless image. */
const rootlessUser = 1000;
const socket = 'unix:///run/buildkit/buildkitd.sock';
const cacheFolder = '/cache';
const configFolder = '/etc/buildkit';

type Builder = z.output<typeof KubernetesBuilder>;

/** The builder that a rendered section asks for; null where it asks for none. */
export const builderOf = ({ builder }: KubernetesSection): Builder | null =>
  typeof builder === 'object' ? builder : null;

/**
 * BuildKit in the namespace: its settings, its cache, its name in DNS, and one pod. `reach`: where it may get to
 * beside what all pods of the namespace may, when their egress is closed.
 */
export function builderObjects(
  section: KubernetesSection,
  make: MakeObject,
  options: { image?: string | undefined; reach?: readonly Destination[] | undefined; own: object },
): KubeObject[] {
  const builder = builderOf(section);
  if (!builder) return [];
  const { app, container, port, cache, policy } = builderNames;
  const config = buildkitConfig(builder);
  const defaultImage = options.image ?? defaultBuilderImage;
  const secret = builder.registrySecret?.split('/')[1];
  return [
    make('v1', 'ConfigMap', app, { data: { 'buildkitd.toml': config } }),
    make('v1', 'PersistentVolumeClaim', cache, {
      spec: {
        accessModes: ['ReadWriteOnce'],
        resources: { requests: { storage: String(builder.cache) } },
        ...(section.storageClass && { storageClassName: section.storageClass }),
      },
    }),
    ...(section.egress === 'namespace'
      ? [
          make('networking.k8s.io/v1', 'NetworkPolicy', policy, {
            spec: {
              podSelector: { matchLabels: { app } },
              policyTypes: ['Egress'],
              egress: (options.reach ?? []).map(egressRule),
            },
          }),
        ]
      : []),
    make('v1', 'Service', app, {
      spec: { selector: { app }, ports: [{ name: 'buildkit', port, targetPort: port }] },
    }),
    make(
      'apps/v1',
      'StatefulSet',
      app,
      {
        spec: {
          serviceName: app,
          replicas: 1,
          // So that a pod that never became ready is replaced by the next version.
          podManagementPolicy: 'Parallel',
          selector: { matchLabels: { app } },
          template: {
            metadata: {
              labels: { ...options.own, app },
              // It reads its settings when it starts.
              annotations: { [annotations.settings]: createHash('sha256').update(config).digest('hex') },
            },
            spec: {
              enableServiceLinks: false,
              // Steps of a build share its network, and have no business with the API server.
              automountServiceAccountToken: false,
              terminationGracePeriodSeconds: 10,
              ...placement(section),
              ...(builder.rootless && {
                securityContext: {
                  // Once only: layers of the cache belong to many users.
                  fsGroup: rootlessUser,
                  fsGroupChangePolicy: 'OnRootMismatch',
                },
              }),
              containers: [
                {
                  name: container,
                  image: builder.image ?? (builder.rootless ? `${defaultImage}-rootless` : defaultImage),
                  ...(section.pullPolicy && { imagePullPolicy: section.pullPolicy }),
                  args: [
                    '--config',
                    `${configFolder}/buildkitd.toml`,
                    // A pod may not mount a /proc of its own for each step.
                    ...(builder.rootless ? ['--oci-worker-no-process-sandbox'] : []),
                  ],
                  ports: [{ name: 'buildkit', containerPort: port }],
                  readinessProbe: {
                    exec: { command: ['buildctl', '--addr', socket, 'debug', 'workers'] },
                    initialDelaySeconds: 1,
                    periodSeconds: 5,
                    timeoutSeconds: 10,
                  },
                  resources: resourcesOf(builder),
                  securityContext: securityOf(builder, section),
                  volumeMounts: [
                    { name: 'cache', mountPath: cacheFolder },
                    { name: 'run', mountPath: '/run/buildkit' },
                    { name: 'config', mountPath: configFolder, readOnly: true },
                  ],
                },
              ],
              volumes: [
                { name: 'cache', persistentVolumeClaim: { claimName: cache } },
                { name: 'run', emptyDir: {} },
                { name: 'config', configMap: { name: app } },
              ],
            },
          },
        },
      },
      secret ? { annotations: { [annotations.registrySecret]: secret } } : {},
    ),
  ];
}

/**
 * Rootless wants what the usual seccomp and AppArmor profiles forbid (new user namespaces, mounts in them). Only
 * `privileged` lets a pod ask for that; under `baseline` what the node does by itself decides.
 */
function securityOf(builder: Builder, { podSecurity }: KubernetesSection): object {
  if (!builder.rootless) return { privileged: true };
  return {
    runAsUser: rootlessUser,
    runAsGroup: rootlessUser,
    ...(podSecurity === 'privileged' && {
      seccompProfile: { type: 'Unconfined' },
      appArmorProfile: { type: 'Unconfined' },
    }),
  };
}

/** buildkitd.toml. */
function buildkitConfig(builder: Builder): string {
  const bytes = parseQuantity(builder.cache) ?? 0;
  const registries = builder.insecureRegistries.map(
    // Validation lets hosts through only; JSON's quoting of them is TOML's.
    (host) => `\n[registry.${JSON.stringify(host)}]\n  http = true\n`,
  );
  // Without an address it listens on IPv4 and IPv6, whichever the cluster has.
  return `root = "${cacheFolder}/buildkit"

[grpc]
  address = ["${socket}", "tcp://:${builderNames.port}"]

[worker.containerd]
  enabled = false

[worker.oci]
  gc = true
  reservedSpace = ${Math.floor(bytes * 0.1)}
  maxUsedSpace = ${Math.floor(bytes * 0.9)}
${registries.join('')}`;
}

/** The registries that a builder has to reach, as URLs: those of plain HTTP, and those that its secret is for. */
export function registriesOf(section: KubernetesSection, copies: readonly KubeObject[]): string[] {
  const builder = builderOf(section);
  if (!builder) return [];
  const secret = copies.find(
    ({ metadata }) => `${metadata.namespace}/${metadata.name}` === builder.registrySecret,
  );
  return [
    ...builder.insecureRegistries.map((host) => `http://${host}`),
    ...Object.keys((secret && registryAuths(secret)) ?? {}).map(
      (key) => `https://${key.replace(/^https?:\/\//, '').split('/')[0]}`,
    ),
  ].filter((url) => URL.canParse(url));
}

/** The credentials in a secret as `docker login` or kubectl write it, by registry; null where there are none. */
export function registryAuths(secret: KubeObject): Record<string, Record<string, string>> | null {
  const data = (secret.data ?? {}) as Record<string, string>;
  const text = data['.dockerconfigjson'] ?? data['config.json'];
  try {
    const read = (part: string) => JSON.parse(Buffer.from(part, 'base64').toString('utf8'));
    const auths = text !== undefined ? read(text).auths : data['.dockercfg'] && read(data['.dockercfg']);
    return typeof auths === 'object' && auths !== null && !Array.isArray(auths) ? auths : null;
  } catch {
    return null;
  }
}
