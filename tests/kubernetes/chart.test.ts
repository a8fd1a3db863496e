// What the chart renders, for good values and bad ones; that the cluster takes it is asked of the cluster itself.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { roleObjects } from '@cde/cli/clusters/role-objects.ts';
import { readProfiles } from '@cde/noded/profiles.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { runAsync } from '../cluster/machine.ts';
import { tool } from '../cluster/tool.ts';

const chart = fileURLToPath(new URL('../../helm', import.meta.url));
const namespace = `chart-test-${Date.now().toString(36)}`;
let helm: string;
let kube: string;
const kubectl = (args: string[], input = '') => {
  const ran = spawnSync(kube, ['kubectl', '--kubeconfig', process.env.CDE_TEST_KUBECONFIG!, ...args], {
    input,
    encoding: 'utf8',
  });
  return { code: ran.status, output: ran.stdout + ran.stderr };
};
beforeAll(async () => {
  [helm, kube] = await Promise.all([tool('helm'), tool('kube')]);
  kubectl(['create', 'namespace', namespace]);
});
afterAll(() => void kubectl(['delete', 'namespace', namespace, '--wait=false']));

const external = {
  accessUrl: 'https://cde.example.com',
  database: { external: { secret: 'cde-database' } },
};
const embedded = {
  accessUrl: 'https://cde.example.com',
  server: { replicas: 1 },
  database: { embedded: { enabled: true } },
};
const tokyo = {
  name: 'tokyo',
  url: 'https://tokyo.cde.example.com',
  region: 'ap',
  tokenSecret: 'tokyo',
  tlsSecret: 'tokyo-tls',
  trustProxy: '10.0.0.0/8',
  service: { type: 'LoadBalancer', port: 443 },
};
const everything = {
  ...external,
  image: { registry: 'registry.example.com/cde/', tag: '1.2.3', pullSecrets: ['pull'] },
  server: {
    settings: { CDE_SESSION_DAYS: '30' },
    env: [{ name: 'CDE_OIDC_CLIENT_SECRET', valueFrom: { secretKeyRef: { name: 'oidc', key: 'secret' } } }],
  },
  ports: { host: '*.dev.example.com', tlsSecret: 'dev-tls' },
  ingress: {
    enabled: true,
    className: 'nginx',
    tlsSecret: 'cde-tls',
    annotations: { 'nginx.ingress.kubernetes.io/proxy-read-timeout': '3600' },
  },
  satellites: [tokyo, { name: 'oslo', url: 'http://oslo', tokenSecret: 'oslo' }],
  networkPolicy: { metricsFrom: { 'kubernetes.io/metadata.name': 'monitoring' } },
};

const noded = {
  ...external,
  noded: {
    enabled: true,
    allow: ['net.ipv6.*'],
    profiles: {
      scylla: {
        sysctls: {
          'fs.aio-max-nr': { atLeast: 1_048_576 },
          'fs.file-max': { atLeast: '9223372036854775807' },
          'vm.swappiness': 1,
        },
        nodeSelector: { pool: 'dev' },
      },
    },
  },
};
const nodedWith = (more: object) => ({ ...noded, noded: { ...noded.noded, ...more } });

interface Rendered {
  kind: string;
  metadata: { name: string; namespace?: string };
  spec: any;
  rules: any;
}
/** What helm makes of the values, or what it refuses them with. */
function template(values: object): { text: string; errors: string; objects: Rendered[] } {
  const ran = spawnSync(
    helm,
    ['template', 'cde', chart, '--namespace', namespace, '--kube-version', '1.35.0', '--values', '-'],
    { input: JSON.stringify(values), encoding: 'utf8' },
  );
  const objects = parseAllDocuments(ran.stdout)
    .map((document) => document.toJS() as Rendered | null)
    .filter((object) => object !== null);
  return { text: ran.stdout, errors: ran.stderr, objects };
}
const find = (objects: Rendered[], kind: string, name?: string) =>
  objects.find((object) => object.kind === kind && (name === undefined || object.metadata.name === name))!;

test('helm lint finds nothing', async () => {
  const args = ['--set', 'accessUrl=https://x', '--set', 'database.external.secret=x', '--strict'];
  expect(await runAsync(helm, ['lint', chart, ...args])).toContain('0 chart(s) failed');
});

test.each(
  Object.entries({ external, embedded, everything, noded }),
)('a cluster takes what %s gives', (_, values) => {
  const { objects, errors } = template(values);
  expect(errors).toBe('');
  // kubectl takes objects of one namespace at a time; Helm does not mind.
  for (const where of [namespace, 'default']) {
    const there = objects.filter(({ metadata }) => (metadata.namespace ?? namespace) === where);
    if (there.length === 0) continue;
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: there });
    const asked = kubectl(['apply', '--dry-run=server', '-n', where, '-f', '-'], list);
    expect(asked).toMatchObject({ code: 0 });
    expect(asked.output).not.toContain('Warning');
  }
});

test('with the embedded database: one replica on a volume that outlives the release', () => {
  const { objects } = template(embedded);
  const { spec } = find(objects, 'Deployment');
  expect(spec).toMatchObject({ replicas: 1, strategy: { type: 'Recreate' } });
  expect(spec.template.spec.volumes[0]).toEqual({
    name: 'data',
    persistentVolumeClaim: { claimName: 'cde-data' },
  });
  expect(find(objects, 'PersistentVolumeClaim')).toMatchObject({
    metadata: { annotations: { 'helm.sh/resource-policy': 'keep' } },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '10Gi' } } },
  });
  expect(find(objects, 'PodDisruptionBudget')).toBeUndefined();
});

test('with an external database: replicas are replaced one by one, without a gap', () => {
  const { objects } = template(external);
  const { spec } = find(objects, 'Deployment');
  expect(spec).toMatchObject({
    replicas: 2,
    strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0 } },
  });
  const [container] = spec.template.spec.containers;
  expect(spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThan(25);
  expect(container.lifecycle.preStop.exec.command).toEqual(['sleep', '5']);
  expect(container.readinessProbe.httpGet.path).toBe('/readyz');
  const env = Object.fromEntries(
    container.env.map(({ name, value, valueFrom }: { name: string; value?: string; valueFrom?: object }) => [
      name,
      value ?? valueFrom,
    ]),
  );
  expect(env).toMatchObject({
    CDE_ACCESS_URL: 'https://cde.example.com',
    CDE_REPLICA_URL: 'http://$(POD_IP):7080',
    DATABASE_URL: { secretKeyRef: { name: 'cde-database', key: 'DATABASE_URL' } },
    CDE_SECRET_KEY: { secretKeyRef: { name: 'cde-secret-key', key: 'CDE_SECRET_KEY' } },
    CDE_CLUSTER: 'in-cluster',
  });
  expect(find(objects, 'PodDisruptionBudget').spec.maxUnavailable).toBe(1);
});

test('every pod meets Pod Security `restricted` and has a read-only root filesystem', () => {
  const { objects } = template(everything);
  const pods = objects.filter(({ kind }) => kind === 'Deployment').map(({ spec }) => spec.template.spec);
  expect(pods).toHaveLength(3);
  for (const pod of pods) {
    expect(pod.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 10001,
      seccompProfile: { type: 'RuntimeDefault' },
    });
    for (const container of pod.containers) {
      expect(container.securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
      expect(container.image).toMatch(/^registry\.example\.com\/cde\/cde-(server|satellite):1\.2\.3$/);
    }
  }
  kubectl(['label', 'namespace', namespace, 'pod-security.kubernetes.io/warn=restricted', '--overwrite']);
  const asked = kubectl(['apply', '--dry-run=server', '-n', namespace, '-f', '-'], template(everything).text);
  expect(asked.output).not.toContain('would violate');
});

test("a job checks the settings with the server's environment", () => {
  const { objects } = template(everything);
  const { spec, metadata } = find(objects, 'Job', 'cde-check-config') as any;
  expect(metadata.annotations['helm.sh/hook']).toBe('pre-install,pre-upgrade');
  const [job] = spec.template.spec.containers;
  const [server] = find(objects, 'Deployment', 'cde-server').spec.template.spec.containers;
  const names = (env: { name: string }[]) =>
    env.map(({ name }) => name).filter((name) => name !== 'CDE_CHECK_REQUIRED');
  expect(names(job.env)).toEqual(names(server.env));
  expect(find(template({ ...external, checkConfig: false }).objects, 'Job')).toBeUndefined();
});

test('optional values: placement, labels, certificate authorities, a Gateway, metrics', () => {
  const { objects, errors } = template({
    ...external,
    server: {
      envFrom: [{ secretRef: { name: 'oidc' } }],
      affinity: { nodeAffinity: {} },
      priorityClassName: 'high',
      podLabels: { team: 'a' },
    },
    caBundle: { configMap: 'ca' },
    gateway: { enabled: true, parentRefs: [{ name: 'public' }] },
    metrics: { serviceMonitor: { enabled: true, tokenSecret: 'metrics' } },
    satellites: [
      {
        ...tokyo,
        service: { type: 'NodePort', port: 443 },
        udp: { enabled: true, address: '192.0.2.1:30900' },
      },
    ],
  });
  expect(errors).toBe('');
  const pod = find(objects, 'Deployment', 'cde-server').spec.template;
  expect(pod).toMatchObject({
    metadata: { labels: { team: 'a' } },
    spec: { priorityClassName: 'high', affinity: { nodeAffinity: {} } },
  });
  const [server] = pod.spec.containers;
  expect(server.envFrom).toEqual([{ secretRef: { name: 'oidc' } }]);
  expect(server.env).toContainEqual({ name: 'NODE_EXTRA_CA_CERTS', value: '/etc/cde/ca/ca.crt' });
  // Passed on to agents in workspaces.
  expect(server.env).toContainEqual({ name: 'CDE_AGENT_CA', value: '/etc/cde/ca/ca.crt' });
  expect(find(objects, 'HTTPRoute').spec).toMatchObject({
    parentRefs: [{ name: 'public' }],
    hostnames: ['cde.example.com'],
  });
  expect(find(objects, 'ServiceMonitor').spec.endpoints[0].authorization.credentials).toEqual({
    name: 'metrics',
    key: 'token',
  });
  // The address of STUN is the one that others reach, and the Service is there.
  const [satellite] = find(objects, 'Deployment', 'cde-satellite-tokyo').spec.template.spec.containers;
  expect(satellite.env).toContainEqual({ name: 'CDE_SATELLITE_UDP_ADDRESS', value: '192.0.2.1:30900' });
  expect(find(objects, 'Service', 'cde-satellite-tokyo-udp').spec.ports[0]).toMatchObject({
    protocol: 'UDP',
    nodePort: 30900,
  });
  const [silent] = find(template(everything).objects, 'Deployment', 'cde-satellite-tokyo').spec.template.spec
    .containers;
  expect(silent.env).toContainEqual({ name: 'CDE_SATELLITE_UDP', value: 'off' });
});

test('satellites, ingress and network policy', () => {
  const { objects } = template(everything);
  const satellite = find(objects, 'Deployment', 'cde-satellite-tokyo').spec.template.spec;
  expect(satellite.automountServiceAccountToken).toBe(false);
  expect(satellite.containers[0].env).toContainEqual({
    name: 'CDE_SATELLITE_TOKEN',
    valueFrom: { secretKeyRef: { name: 'tokyo', key: 'token' } },
  });
  expect(satellite.containers[0].env).toContainEqual({
    name: 'CDE_SATELLITE_TRUST_PROXY',
    value: '10.0.0.0/8',
  });
  expect(satellite.containers[0].readinessProbe.httpGet.scheme).toBe('HTTPS');
  expect(find(objects, 'Service', 'cde-satellite-tokyo').spec).toMatchObject({
    type: 'LoadBalancer',
    ports: [{ port: 443 }],
  });
  expect(find(objects, 'Service', 'cde-satellite-oslo').spec.type).toBe('ClusterIP');
  expect(find(objects, 'Ingress').spec).toMatchObject({
    ingressClassName: 'nginx',
    rules: [{ host: 'cde.example.com' }, { host: '*.dev.example.com' }],
    tls: [
      { hosts: ['cde.example.com'], secretName: 'cde-tls' },
      { hosts: ['*.dev.example.com'], secretName: 'dev-tls' },
    ],
  });
  expect(find(objects, 'Deployment', 'cde-server').spec.template.spec.containers[0].env).toContainEqual({
    name: 'CDE_PORT_HOST',
    value: '*.dev.example.com',
  });
  expect(find(objects, 'NetworkPolicy').spec.ingress).toHaveLength(2);
});

test('permissions only where workspaces run, and none over the cluster itself', () => {
  const without = template({ ...external, workspaces: { inCluster: false } });
  expect(without.objects.filter(({ kind }) => kind.startsWith('ClusterRole'))).toEqual([]);
  expect(find(without.objects, 'Deployment').spec.template.spec.automountServiceAccountToken).toBe(false);
  expect(without.text).not.toContain('in-cluster');

  const account = { namespace, serviceAccount: 'cde-server', podSecurity: 'baseline' as const };
  const copySecrets = ['registries/pull', 'registries/push'];
  const { objects } = template({ ...external, workspaces: { copySecrets } });
  const { rules } = find(objects, 'ClusterRole', `cde:server:${namespace}:cde-server`);
  const written = rules.filter(({ verbs }: { verbs: string[] }) =>
    verbs.some((verb) => !['get', 'list', 'watch'].includes(verb)),
  );
  expect(written.flatMap((rule: { resources: string[] }) => rule.resources)).toEqual([
    'namespaces',
    'rolebindings',
    'clusterroles',
    'persistentvolumes',
    'volumesnapshotcontents',
  ]);
  expect(JSON.stringify(rules)).not.toMatch(/"\*"|escalate|impersonate|secrets/);
  // What `cde cluster role` prints for other clusters is the same.
  const plain = (all: readonly Rendered[]) =>
    all
      .filter(({ kind }) => /Role|ValidatingAdmission/.test(kind))
      .map(({ metadata: { labels: _, ...metadata }, ...rest }: any) => ({ ...rest, metadata }))
      .sort((a, b) => `${a.kind} ${a.metadata.name}`.localeCompare(`${b.kind} ${b.metadata.name}`));
  expect(plain(objects)).toEqual(plain(roleObjects({ ...account, copySecrets }) as unknown as Rendered[]));
  const privileged = template({ ...external, workspaces: { podSecurity: 'privileged' } }).objects;
  expect(plain(privileged)).toEqual(
    plain(roleObjects({ ...account, podSecurity: 'privileged', copySecrets: [] }) as unknown as Rendered[]),
  );
});

test('noded: profiles in its format, and only the privileges that they need', () => {
  const { objects } = template(noded);
  // Helm writes large numbers as floats (1.048576e+06).
  const read = readProfiles((find(objects, 'ConfigMap') as unknown as { data: any }).data['profiles.yaml']);
  expect(read).toMatchObject({ profiles: [{ name: 'scylla', nodeSelector: { pool: 'dev' } }] });
  expect('profiles' in read && Object.fromEntries(read.profiles[0]!.sysctls)).toEqual({
    'fs.aio-max-nr': { atLeast: 1_048_576n },
    'fs.file-max': { atLeast: 9223372036854775807n },
    'vm.swappiness': { exact: '1' },
  });
  const pod = (values: object) => find(template(values).objects, 'DaemonSet').spec.template.spec;
  const least = pod(noded);
  expect(least).toMatchObject({ priorityClassName: 'system-node-critical' });
  expect(least.hostNetwork ?? least.hostPID).toBeUndefined();
  expect(least.containers[0].securityContext).toEqual({
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  });
  const modules = pod(nodedWith({ profiles: { a: { modules: ['br_netfilter'] } } }));
  expect(modules.containers[0].securityContext.capabilities).toEqual({ drop: ['ALL'], add: ['SYS_MODULE'] });
  expect(modules.containers[0].volumeMounts).toContainEqual({
    name: 'modules',
    mountPath: '/lib/modules',
    readOnly: true,
  });
  const network = { hostNetwork: true, profiles: { a: { sysctls: { 'net.core.somaxconn': 5000 } } } };
  const pages = { hugePages: true, profiles: { a: { transparentHugePages: { enabled: 'never' } } } };
  expect(pod(nodedWith(pages)).containers[0].volumeMounts).toContainEqual({
    name: 'huge-pages',
    mountPath: '/host/transparent_hugepage',
  });
  expect(least.containers[0].volumeMounts).toContainEqual({
    name: 'sysctl-d-0',
    mountPath: '/host/etc/sysctl.d',
    readOnly: true,
  });
  expect(JSON.stringify(pod(nodedWith({ sysctlFolders: [] })).volumes)).not.toContain('sysctl.d');
  expect(pod(nodedWith(network)).hostNetwork).toBe(true);

  const { rules } = find(objects, 'ClusterRole', `${namespace}-cde-noded`);
  expect(rules).toEqual([{ apiGroups: [''], resources: ['nodes'], verbs: ['get', 'patch'] }]);
  expect(find(objects, 'ValidatingAdmissionPolicyBinding').spec.validationActions).toEqual(['Deny']);
  const restore = 'cde-noded-restore';
  expect(find(objects, 'Job', restore).spec.template.spec.containers[0].args).toEqual(['restore']);
  expect(find(template(nodedWith({ restoreSeconds: 0 })).objects, 'Job', restore)).toBeUndefined();
  expect(template(external).text).not.toContain('noded');
});

test.each<[string, object, string]>([
  [
    'a network sysctl without hostNetwork',
    nodedWith({ profiles: { a: { sysctls: { 'net.core.somaxconn': 1 } } } }),
    'noded.profiles.a: net.core.somaxconn requires noded.hostNetwork=true',
  ],
  [
    'a limit of process ids without theirs',
    nodedWith({ profiles: { a: { sysctls: { 'kernel.pid_max': 1 } } } }),
    'noded.hostPID=true',
  ],
  [
    'huge pages that noded does not see',
    nodedWith({ profiles: { a: { transparentHugePages: { enabled: 'never' } } } }),
    'noded.profiles.a: transparentHugePages requires noded.hugePages=true',
  ],
  ['a profile that makes no label', nodedWith({ profiles: { A_b: {} } }), 'A_b'],
  ['a key that a profile has not', nodedWith({ profiles: { a: { limits: {} } } }), 'limits'],
  ['no access URL', { database: external.database }, 'accessUrl is missing'],
  ['no database', { accessUrl: 'https://x' }, 'There is no database'],
  ['two databases', { ...embedded, database: { ...embedded.database, ...external.database } }, 'choose one'],
  [
    'several replicas with the embedded database',
    { ...embedded, server: { replicas: 2 } },
    'only one replica',
  ],
  ['an unknown value', { ...external, replicas: 2 }, 'replicas'],
  ['a URL with a path', { ...external, accessUrl: 'https://x/cde' }, 'accessUrl'],
  ['a variable that is not a setting', { ...external, server: { settings: { PATH: '/' } } }, 'PATH'],
  [
    'a setting that does not exist',
    { ...external, server: { settings: { CDE_SESION_DAYS: '3' } } },
    'CDE_SESION_DAYS',
  ],
  [
    'a setting that the chart sets',
    { ...external, server: { settings: { CDE_LISTEN: ':1' } } },
    'CDE_LISTEN',
  ],
  [
    'the same in its environment',
    { ...external, server: { env: [{ name: 'CDE_ACCESS_URL', value: 'https://y' }] } },
    'server/env',
  ],
  [
    'a URL as host',
    { ...external, ingress: { enabled: true, host: 'https://cde.example.com' } },
    'ingress/host',
  ],
  ['a URL as registry', { ...external, image: { registry: 'https://r.example.com/' } }, 'image/registry'],
  ['a URL as image', { ...external, server: { image: 'https://r/x' } }, 'server/image'],
  ['credentials in the access URL', { ...external, accessUrl: 'https://ada:secret@x' }, 'accessUrl'],
  ['an empty volume', { ...embedded, database: { embedded: { enabled: true, size: '0Gi' } } }, 'size'],
  ['a misspelled size', { ...external, server: { resources: { limits: { memory: '2Gb' } } } }, 'memory'],
  [
    'a sysctl that noded never sets',
    nodedWith({ allow: ['kernel.*'], profiles: { a: { sysctls: { 'kernel.core_pattern': 'x' } } } }),
    'noded never sets kernel.core_pattern',
  ],
  [
    'one that is not allowed',
    nodedWith({ profiles: { a: { sysctls: { 'vm.laptop_mode': 1 } } } }),
    'noded.allow',
  ],
  [
    'UDP without an address',
    { ...external, satellites: [{ ...tokyo, udp: { enabled: true } }] },
    'udp.address',
  ],
  ['a route without a Gateway', { ...external, gateway: { enabled: true } }, 'gateway.parentRefs'],
  [
    'a satellite without a token',
    { ...external, satellites: [{ name: 'a', url: 'http://a' }] },
    'tokenSecret',
  ],
  [
    'two satellites with the same name',
    { ...external, satellites: [tokyo, tokyo] },
    'two have the name tokyo',
  ],
])('refuses %s', (_, values, said) => {
  expect(template(values).errors).toContain(said);
});
