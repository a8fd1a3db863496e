import { KubernetesSection } from '@cde/api/template-file.ts';
import { expect, test } from 'vitest';
import { isKind, type Kube, type KubeObject, type ModelKind } from '../api/models.ts';
import { builderObjects, registriesOf, registryAuths } from './builder.ts';
import { makeObjectsIn } from './make.ts';
import type { Destination } from './network.ts';

const sectionOf = (builder: object | undefined, more: object = {}) =>
  KubernetesSection.parse({ image: 'app:1', ...(builder && { builder }), ...more });

function render(
  builder: object | undefined,
  more: object = {},
  options: { image?: string; reach?: Destination[] } = {},
): KubeObject[] {
  const own = { 'cde.dev/managed': 'true' };
  return builderObjects(sectionOf(builder, more), makeObjectsIn('cde-ada-web', own), { own, ...options });
}
function find<Kind extends ModelKind>(objects: KubeObject[], kind: Kind): Kube<Kind> {
  const found = objects.filter((object) => isKind(object, kind))[0];
  if (!found) throw new Error(`there is no ${kind}`);
  return found;
}
function podOf(objects: KubeObject[]) {
  const { metadata, spec } = find(objects, 'StatefulSet').spec!.template;
  return { metadata: metadata!, spec: spec!, container: spec!.containers[0]! };
}
const settingsOf = (objects: KubeObject[]): string => find(objects, 'ConfigMap').data!['buildkitd.toml']!;

test('without a builder there are no objects', () => {
  expect(render(undefined)).toEqual([]);
});

test('a builder has settings, a cache volume, a DNS name and one pod', () => {
  const objects = render({ cpus: 4, memory: '8Gi', cache: '50Gi' }, { storageClass: 'fast' });
  expect(objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual([
    'ConfigMap builder',
    'PersistentVolumeClaim builder-cache',
    'Service builder',
    'StatefulSet builder',
  ]);
  expect(find(objects, 'PersistentVolumeClaim').spec).toEqual({
    accessModes: ['ReadWriteOnce'],
    resources: { requests: { storage: '50Gi' } },
    storageClassName: 'fast',
  });
  const { metadata, spec, container } = podOf(objects);
  expect(metadata.labels).toEqual({ 'cde.dev/managed': 'true', app: 'builder' });
  expect(spec.automountServiceAccountToken).toBe(false);
  expect(container).toMatchObject({
    image: 'moby/buildkit:v0.31.0-rootless',
    resources: { limits: { cpu: '4', memory: '8Gi' }, requests: { cpu: '2000m', memory: '8Gi' } },
    readinessProbe: { exec: { command: expect.arrayContaining(['debug', 'workers']) } },
  });
  // What is built never fills the volume.
  expect(settingsOf(objects)).toContain(`maxUsedSpace = ${45 * 2 ** 30}`);
});

test('it uses the template’s placement, pull policy and pull secrets', () => {
  const { spec } = podOf(
    render(
      {},
      {
        nodeSelector: { pool: 'dev' },
        tolerations: [{ key: 'dev', operator: 'Exists' }],
        pullSecrets: ['registries/team'],
        pullPolicy: 'Always',
      },
      { image: 'mirror.example.com/buildkit:1' },
    ),
  );
  expect(spec).toMatchObject({
    nodeSelector: { pool: 'dev' },
    tolerations: [{ key: 'dev', operator: 'Exists' }],
    imagePullSecrets: [{ name: 'team' }],
    containers: [{ image: 'mirror.example.com/buildkit:1-rootless', imagePullPolicy: 'Always' }],
  });
  expect(podOf(render({ image: 'own:1' })).container.image).toBe('own:1');
});

test('rootless requests its profiles only if a pod can; otherwise the container is privileged', () => {
  const contextOf = (builder: object, podSecurity: string) =>
    podOf(render(builder, { podSecurity })).container;
  expect(contextOf({}, 'baseline').securityContext).toEqual({ runAsUser: 1000, runAsGroup: 1000 });
  expect(contextOf({}, 'privileged').securityContext).toEqual({
    runAsUser: 1000,
    runAsGroup: 1000,
    seccompProfile: { type: 'Unconfined' },
    appArmorProfile: { type: 'Unconfined' },
  });
  expect(contextOf({}, 'privileged').args).toContain('--oci-worker-no-process-sandbox');
  const privileged = contextOf({ rootless: false }, 'privileged');
  expect(privileged).toMatchObject({ image: 'moby/buildkit:v0.31.0', securityContext: { privileged: true } });
  expect(privileged.args).not.toContain('--oci-worker-no-process-sandbox');
});

test('changed settings replace the pod', () => {
  const hash = (builder: object) => podOf(render(builder)).metadata.annotations!['cde.dev/settings'];
  const plain = hash({});
  expect(hash({})).toBe(plain);
  expect(hash({ insecureRegistries: ['registry:5000'] })).not.toBe(plain);
  expect(settingsOf(render({ insecureRegistries: ['a.example.com', 'registry:5000'] }))).toContain(
    '[registry."registry:5000"]\n  http = true\n',
  );
});

test('in a closed namespace it reaches only its registries', () => {
  const reach = [{ cidr: '10.0.0.9/32', port: 5000 }];
  expect(render({}, {}, { reach }).map(({ kind }) => kind)).not.toContain('NetworkPolicy');
  const policy = find(render({}, { egress: 'namespace' }, { reach }), 'NetworkPolicy');
  expect(policy).toMatchObject({
    metadata: { name: 'cde-builder' },
    spec: {
      podSelector: { matchLabels: { app: 'builder' } },
      policyTypes: ['Egress'],
      egress: [{ to: [{ ipBlock: { cidr: '10.0.0.9/32' } }], ports: [{ protocol: 'TCP', port: 5000 }] }],
    },
  });
});

const secret = (data: Record<string, unknown>): Kube<'Secret'> => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'team', namespace: 'registries' },
  data: Object.fromEntries(
    Object.entries(data).map(([key, value]) => [
      key,
      Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64'),
    ]),
  ),
});

test('registry credentials are read from every form of secret', () => {
  const auths = { 'registry.example.com': { auth: 'YTpi' } };
  expect(registryAuths(secret({ '.dockerconfigjson': { auths } }))).toEqual(auths);
  expect(registryAuths(secret({ 'config.json': { auths, credsStore: 'x' } }))).toEqual(auths);
  expect(registryAuths(secret({ '.dockercfg': auths }))).toEqual(auths);
  for (const other of [
    {},
    { '.dockerconfigjson': 'no JSON' },
    { '.dockerconfigjson': {} },
    { 'config.json': 'null' },
  ])
    expect(registryAuths(secret(other))).toBeNull();
});

test('a builder’s registries are the insecure ones and those in its secret', () => {
  const section = sectionOf({ registrySecret: 'registries/team', insecureRegistries: ['registry:5000'] });
  const auths = { 'https://index.docker.io/v1/': {}, 'registry.example.com:8443': {} };
  expect(registriesOf(section, [secret({ '.dockerconfigjson': { auths } })])).toEqual([
    'http://registry:5000',
    'https://index.docker.io',
    'https://registry.example.com:8443',
  ]);
  expect(registriesOf(section, [])).toEqual(['http://registry:5000']);
});
