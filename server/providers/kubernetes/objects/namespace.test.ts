import { KubernetesSection } from '@cde/api/template-file.ts';
import type { V1PodTemplateSpec } from '@kubernetes/client-node';
import { expect, test } from 'vitest';
import type { WorkspaceSpec } from '../../provider.ts';
import { type AsJson, isKind, type Kube, type KubeObject, type ModelKind } from '../api/models.ts';
import { StepFailure } from './failure.ts';
import { namespaceName } from './names.ts';
import { type NamespaceOptions, renderNamespace } from './namespace.ts';
import { destinationsOf } from './network.ts';
import { resourcesOf } from './pod.ts';

const launch = { buildId: 'b1', serverUrl: 'http://10.0.0.1:7080', token: 'cde_agent_secret' };

function render(
  section: object = {},
  template: Partial<WorkspaceSpec['template']> = {},
  options: Partial<NamespaceOptions> = {},
): KubeObject[] {
  const spec: WorkspaceSpec = {
    workspaceId: 'w1',
    owner: 'ada',
    name: 'web',
    template: {
      name: 't',
      provider: 'kubernetes',
      parameters: {},
      home: { size: '20Gi' },
      env: {},
      local: {},
      kubernetes: KubernetesSection.parse({ image: 'app:1', ...section }),
      ...template,
    },
  };
  return renderNamespace(spec, launch, {
    namespace: 'cde-ada-web',
    installation: 'i1',
    agentImage: 'cde-agent:1',
    ...options,
  });
}
function find<Kind extends ModelKind>(objects: KubeObject[], kind: Kind, name: string): Kube<Kind> {
  const found = objects
    .filter((object) => isKind(object, kind))
    .find(({ metadata }) => metadata.name === name);
  if (!found) throw new Error(`there is no ${kind} ${name}`);
  return found;
}
const templateOf = ({ metadata, spec }: AsJson<V1PodTemplateSpec>) => ({ metadata: metadata!, spec: spec! });
const podOf = (objects: KubeObject[]) => templateOf(find(objects, 'StatefulSet', 'workspace').spec!.template);
const servicePodOf = (objects: KubeObject[]) => templateOf(find(objects, 'Deployment', 'db').spec!.template);

test('a simple template has nine objects in the order of their dependencies, with the pod last', () => {
  const objects = render();
  expect(objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual([
    'Namespace cde-ada-web',
    'ServiceAccount developer',
    'RoleBinding developer',
    'ResourceQuota cde',
    'LimitRange cde',
    'NetworkPolicy cde',
    'Secret cde-agent',
    'PersistentVolumeClaim home',
    'StatefulSet workspace',
  ]);
  for (const object of objects) {
    expect(object.metadata.labels).toMatchObject({
      'cde.dev/managed': 'true',
      'cde.dev/installation': 'i1',
      'cde.dev/workspace': 'w1',
      'cde.dev/owner': 'ada',
      'cde.dev/name': 'web',
    });
    if (object.kind !== 'Namespace') expect(object.metadata.namespace).toBe('cde-ada-web');
  }
});

test('only the Secret contains the token', () => {
  const objects = render();
  const { data } = find(objects, 'Secret', 'cde-agent');
  expect(Buffer.from(data!.token!, 'base64').toString()).toBe(launch.token);
  expect(JSON.stringify(objects)).not.toContain(launch.token);
});

test('half of the cores and all of the memory are requested, in any notation', () => {
  expect(resourcesOf({ cpus: 4, memory: '8Gi' })).toEqual({
    limits: { cpu: '4', memory: '8Gi' },
    requests: { cpu: '2000m', memory: '8Gi' },
  });
  expect(resourcesOf({ cpus: '500m' }).requests).toEqual({ cpu: '250m' });
  expect(resourcesOf({ cpus: '0.001' }).requests).toEqual({ cpu: '1m' });
  expect(resourcesOf({ cpus: 2, memory: '4Gi', requests: { cpus: '100m', memory: '1Gi' } }).requests).toEqual(
    {
      cpu: '100m',
      memory: '1Gi',
    },
  );
  expect(resourcesOf({})).toEqual({ limits: {}, requests: {} });
});

test('default limits exist only for what the quota counts', () => {
  const limits = (section: object) => find(render(section), 'LimitRange', 'cde').spec!.limits[0]!.default;
  expect(limits({})).toBeUndefined();
  expect(limits({ quota: { memory: '8Gi' } })).toEqual({ memory: '1Gi' });
  expect(limits({ quota: { cpus: 4, memory: '8Gi' } })).toEqual({ cpu: '1', memory: '1Gi' });
  expect(find(render({ quota: { cpus: 4, storage: '50Gi' } }), 'ResourceQuota', 'cde').spec?.hard).toEqual({
    pods: '50',
    'limits.cpu': '4',
    'requests.storage': '50Gi',
  });
});

test('restricted: nothing in the pod is root, and the developer can write to the volume through its group', () => {
  const { spec } = podOf(render({ podSecurity: 'restricted', user: 1234 }));
  expect(spec.securityContext).toMatchObject({ fsGroup: 1234, seccompProfile: { type: 'RuntimeDefault' } });
  for (const container of [...spec.initContainers!, ...spec.containers])
    expect(container.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 1234,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
    });
});

test('otherwise root prepares the home, and the pod has its own /etc; the image’s user is kept', () => {
  const { spec } = podOf(render({ user: 1000 }));
  const confined = { allowPrivilegeEscalation: false };
  expect(spec.initContainers![1]!.securityContext).toEqual({ ...confined, runAsUser: 0, runAsGroup: 0 });
  expect(spec.containers[0]!.securityContext).toEqual({ ...confined, runAsUser: 1000, runAsGroup: 1000 });
  expect(spec.containers[0]!.volumeMounts).toContainEqual({ name: 'etc', mountPath: '/etc', subPath: 'etc' });
  const image = podOf(render({ user: 'image' })).spec;
  expect(image.containers[0]!.securityContext).toEqual(confined);
  expect(image.initContainers![1]!.securityContext).toEqual(confined);
  expect(image.containers[0]!.volumeMounts).toContainEqual({
    name: 'etc',
    mountPath: '/etc/passwd',
    subPath: 'etc/passwd',
  });
});

test('every pod has seccomp, and sudo works if the template allows it', () => {
  const services = [{ name: 'db', image: 'pg:16' }];
  const profile = { seccompProfile: { type: 'RuntimeDefault' } };
  const of = (section: object) => {
    const objects = render({ services, ...section });
    const service = servicePodOf(objects).spec;
    return { pod: podOf(objects).spec, service };
  };
  for (const section of [{}, { podSecurity: 'restricted' }]) {
    const { pod, service } = of(section);
    for (const spec of [pod, service]) {
      expect(spec.securityContext).toMatchObject(profile);
      for (const { securityContext } of [...(spec.initContainers ?? []), ...spec.containers])
        expect(securityContext).toMatchObject({ allowPrivilegeEscalation: false });
    }
  }
  const sudo = of({ allowPrivilegeEscalation: true });
  expect(sudo.pod.containers[0]!.securityContext?.allowPrivilegeEscalation).toBe(true);
  expect(sudo.service.containers[0]!.securityContext?.allowPrivilegeEscalation).toBe(false);
  // What it may do is for its template to say.
  expect(of({ podSecurity: 'privileged' }).pod.securityContext).not.toHaveProperty('seccompProfile');
});

test('with a read-only root, /tmp, /run and /var/tmp are writable', () => {
  const { spec } = podOf(render({ readOnlyRoot: true }));
  expect(spec.containers[0]!.securityContext?.readOnlyRootFilesystem).toBe(true);
  const paths = spec.containers[0]!.volumeMounts!.map(({ mountPath }) => mountPath);
  expect(paths).toEqual(expect.arrayContaining(['/tmp', '/run', '/var/tmp', '/home/ada']));
});

test('node selection: the template’s labels, tolerations, and the kernel profile', () => {
  const { spec } = podOf(
    render({
      nodeSelector: { pool: 'dev' },
      kernelProfile: 'elastic',
      tolerations: [{ key: 'dev', operator: 'Exists', tolerationSeconds: '30' }],
    }),
  );
  expect(spec.nodeSelector).toEqual({ pool: 'dev', 'cde.dev/kernel-profile.elastic': 'ready' });
  expect(spec.tolerations).toEqual([{ key: 'dev', operator: 'Exists', tolerationSeconds: 30 }]);
});

test('a service has a Deployment, a Service, and its own volume', () => {
  const objects = render({
    services: [
      { name: 'db', image: 'pg:16', ports: [5432], env: { A: 1 }, storage: { path: '/data', size: '5Gi' } },
    ],
  });
  expect(objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual(
    expect.arrayContaining([
      'PersistentVolumeClaim db-data',
      'Deployment db',
      'Service db',
      'Service workspace',
    ]),
  );
  const { template, strategy } = find(objects, 'Deployment', 'db').spec!;
  expect(strategy).toEqual({ type: 'Recreate' });
  expect(template.spec!.containers[0]).toMatchObject({
    env: [{ name: 'A', value: '1' }],
    volumeMounts: [{ name: 'data', mountPath: '/data' }],
  });
  expect(objects.at(-1)!.kind).toBe('StatefulSet');
});

test('services run on the workspace’s nodes, and not as root if that is not permitted', () => {
  const service = {
    name: 'db',
    image: 'pg:16',
    ready: { port: 5432 },
    storage: { path: '/data', size: '1Gi' },
  };
  const of = (section: object) => servicePodOf(render({ services: [service], ...section }));
  const { spec, metadata } = of({ nodeSelector: { pool: 'dev' }, pullSecrets: ['registries/shop'] });
  expect(spec).toMatchObject({
    nodeSelector: { pool: 'dev' },
    imagePullSecrets: [{ name: 'shop' }],
    automountServiceAccountToken: false,
    securityContext: { seccompProfile: { type: 'RuntimeDefault' } },
    containers: [{ readinessProbe: { tcpSocket: { port: 5432 } } }],
  });
  // By these its pod is watched.
  expect(metadata.labels).toMatchObject({ app: 'service-db', 'cde.dev/workspace': 'w1' });
  expect(of({ podSecurity: 'restricted' }).spec).toMatchObject({
    securityContext: { fsGroup: 1000, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [
      {
        securityContext: {
          allowPrivilegeEscalation: false,
          capabilities: { drop: ['ALL'] },
          runAsNonRoot: true,
        },
      },
    ],
  });
  expect(of({ services: [{ ...service, user: 999 }] }).spec).toMatchObject({
    securityContext: { fsGroup: 999 },
    containers: [{ securityContext: { runAsUser: 999 } }],
  });
});

test('manifests get our namespace and labels and keep everything else; another namespace is rejected', () => {
  const manifest = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'stack', labels: { team: 'x', 'cde.dev/workspace': 'forged' } },
    spec: { replicas: 3 },
  };
  const found = find(render({}, { manifests: [manifest] }), 'Deployment', 'stack');
  expect(found).toMatchObject({
    metadata: { namespace: 'cde-ada-web', labels: { team: 'x', 'cde.dev/workspace': 'w1' } },
    spec: { replicas: 3 },
  });
  const foreign = { ...manifest, metadata: { name: 'stack', namespace: 'kube-system' } };
  expect(() => render({}, { manifests: [foreign] })).toThrow(StepFailure);
});

test('the home’s claim names the home’s volume', () => {
  expect(find(render({ storageClass: 'fast' }), 'PersistentVolumeClaim', 'home').spec).toEqual({
    accessModes: ['ReadWriteOnce'],
    resources: { requests: { storage: '20Gi' } },
    storageClassName: 'fast',
  });
  const homeVolume = { name: 'pv-1', size: '30Gi', storageClass: '' };
  expect(
    find(render({ storageClass: 'fast' }, {}, { homeVolume }), 'PersistentVolumeClaim', 'home').spec,
  ).toEqual({
    accessModes: ['ReadWriteOnce'],
    resources: { requests: { storage: '30Gi' } },
    volumeName: 'pv-1',
    storageClassName: '',
  });
});

test('egress: everything except the cloud’s metadata service, or only DNS, the namespace and the server', () => {
  const egress = (section: object, options = {}) =>
    find(render(section, {}, options), 'NetworkPolicy', 'cde').spec!.egress!;
  expect(JSON.stringify(egress({}))).toContain('169.254.169.254/32');
  const closed = egress(
    { egress: 'namespace' },
    { reach: [{ cidr: '10.0.0.1/32', port: 7080 }, { namespace: 'cde-system' }] },
  );
  expect(JSON.stringify(closed)).not.toContain('0.0.0.0/0');
  expect(closed.slice(2)).toEqual([
    { to: [{ ipBlock: { cidr: '10.0.0.1/32' } }], ports: [{ protocol: 'TCP', port: 7080 }] },
    { to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'cde-system' } } }] },
  ]);
});

test('destinations: addresses, Services by their namespace, and nothing for names that do not resolve', async () => {
  expect(
    await destinationsOf([
      'http://10.1.2.3:7080',
      'https://10.1.2.3',
      'http://[fd00::1]:7090',
      'http://cde.cde-system.svc.cluster.local:7080',
      'http://nobody.invalid',
    ]),
  ).toEqual([
    { cidr: '10.1.2.3/32', port: 7080 },
    { cidr: '10.1.2.3/32', port: 443 },
    { cidr: 'fd00::1/128', port: 7090 },
    { namespace: 'cde-system' },
  ]);
});

test('names are readable, within the length limit, and unique', () => {
  expect(namespaceName('ada', 'web', 'w1')).toBe('cde-ada-web');
  const long = namespaceName('a'.repeat(40), 'b'.repeat(40), 'w1');
  expect(long.length).toBeLessThanOrEqual(63);
  expect(long).toMatch(/^cde-a+-b*-?[0-9a-f]{6}$/);
  expect(namespaceName('a'.repeat(40), 'b'.repeat(40), 'w2')).not.toBe(long);
  expect(namespaceName('ada', 'web', 'w1', true)).toMatch(/^cde-ada-web-[0-9a-f]{6}$/);
  expect(namespaceName('Ada.L', 'web', 'w1')).toBe('cde-ada-l-web');
});

test('an agent gets the certificate authorities of the installation, and its pod has no variable without', () => {
  const variables = (options: Partial<NamespaceOptions>) =>
    podOf(render({}, {}, options)).spec!.containers[0]!.env!.map(({ name, value }) => [name, value]);
  expect(variables({ agentCa: 'PEM' })).toContainEqual(['CDE_CERTIFICATE_AUTHORITIES', 'PEM']);
  expect(variables({}).flat()).not.toContain('CDE_CERTIFICATE_AUTHORITIES');
});
