import { createHash } from 'node:crypto';
import type { KubernetesBuilder, KubernetesSection } from '@cde/api/template-file.ts';
import type { z } from 'zod';
import { parseQuantity } from '../../quantity.ts';
import type { Kube, KubeObject, PodSpec, SecurityContext } from '../api/models.ts';
import { annotations } from '../api/names.ts';
import type { MakeObject } from './make.ts';
import { type Destination, egressRule } from './network.ts';
import { placement, resourcesOf } from './pod.ts';

/** Names of the builder's objects in a namespace, and its port. */
export const builderNames = {
  app: 'builder',
  pod: 'builder-0',
  container: 'buildkitd',
  port: 1234,
  cache: 'builder-cache',
  policy: 'cde-builder',
} as const;

/** If neither the template nor the server names an image. The rootless variant ends in `-rootless`. */
const defaultBuilderImage = 'moby/buildkit:v0.31.0';

/** The user of the rootless image. */
const rootlessUser = 1000;
const socket = 'unix:///run/buildkit/buildkitd.sock';
const cacheFolder = '/cache';
const configFolder = '/etc/buildkit';

type Builder = z.output<typeof KubernetesBuilder>;

/** The builder that a rendered section configures; null if it has none. */
const builderOf = ({ builder }: KubernetesSection): Builder | null =>
  typeof builder === 'object' ? builder : null;

/**
 * BuildKit in the namespace: its configuration, cache, Service and one pod. `reach`: the destinations that it may
 * connect to besides those of all pods, if the template restricts egress.
 */
export function builderObjects(
  section: KubernetesSection,
  make: MakeObject,
  options: {
    image?: string | undefined;
    reach?: readonly Destination[] | undefined;
    own: Record<string, string>;
  },
): KubeObject[] {
  const builder = builderOf(section);
  if (!builder) return [];
  const { app, port, cache, policy } = builderNames;
  const config = buildkitConfig(builder);
  const secret = builder.registrySecret?.split('/')[1];
  return [
    make('ConfigMap', app, { data: { 'buildkitd.toml': config } }),
    make('PersistentVolumeClaim', cache, {
      spec: {
        accessModes: ['ReadWriteOnce'],
        resources: { requests: { storage: String(builder.cache) } },
        ...(section.storageClass && { storageClassName: section.storageClass }),
      },
    }),
    ...(section.egress === 'namespace'
      ? [
          make('NetworkPolicy', policy, {
            spec: {
              podSelector: { matchLabels: { app } },
              policyTypes: ['Egress'],
              egress: (options.reach ?? []).map(egressRule),
            },
          }),
        ]
      : []),
    make('Service', app, {
      spec: { selector: { app }, ports: [{ name: 'buildkit', port, targetPort: port }] },
    }),
    make(
      'StatefulSet',
      app,
      {
        spec: {
          serviceName: app,
          replicas: 1,
          // With OrderedReady, a pod that never became ready would block the next version.
          podManagementPolicy: 'Parallel',
          selector: { matchLabels: { app } },
          template: {
            metadata: {
              labels: { ...options.own, app },
              // buildkitd reads its configuration only when it starts.
              annotations: { [annotations.settings]: createHash('sha256').update(config).digest('hex') },
            },
            spec: builderPod(builder, section, options.image ?? defaultBuilderImage),
          },
        },
      },
      secret ? { annotations: { [annotations.registrySecret]: secret } } : {},
    ),
  ];
}

function builderPod(builder: Builder, section: KubernetesSection, defaultImage: string): PodSpec {
  const { app, container, port, cache } = builderNames;
  return {
    enableServiceLinks: false,
    // Build steps share its network, and do not need the API server.
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 10,
    ...placement(section),
    ...(builder.rootless && {
      securityContext: {
        // Only once: the cached layers belong to many users.
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
          // An unprivileged pod cannot mount a /proc per build step.
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
  };
}

/**
 * Rootless BuildKit needs what the default seccomp and AppArmor profiles forbid (user namespaces, and mounts in
 * them). Only `privileged` allows a pod to lift them; under `baseline` it depends on the nodes.
 */
function securityOf(builder: Builder, { podSecurity }: KubernetesSection): SecurityContext {
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
    // Validation admits only host names, and for those JSON quoting is valid TOML.
    (host) => `\n[registry.${JSON.stringify(host)}]\n  http = true\n`,
  );
  // Without an address it listens on both IPv4 and IPv6.
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

/** URLs of the registries that a builder connects to: insecure ones, and those in its registry secret. */
export function registriesOf(section: KubernetesSection, copies: readonly Kube<'Secret'>[]): string[] {
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

/** The credentials by registry in a secret that `docker login` or kubectl wrote; null if there are none. */
export function registryAuths({
  data = {},
}: Pick<Kube<'Secret'>, 'data'>): Record<string, Record<string, string>> | null {
  const text = data['.dockerconfigjson'] ?? data['config.json'];
  try {
    const read = (part: string) => JSON.parse(Buffer.from(part, 'base64').toString('utf8'));
    const auths = text !== undefined ? read(text).auths : data['.dockercfg'] && read(data['.dockercfg']);
    return typeof auths === 'object' && auths !== null && !Array.isArray(auths) ? auths : null;
  } catch {
    return null;
  }
}
