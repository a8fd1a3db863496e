// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { KubeError, KubeObject } from '../../providers/kubernetes/api/client.ts';
import type { Kube } from '../../providers/kubernetes/api/models.ts';
import { openTestCluster, type TestCluster } from '../../providers/kubernetes/testing/cluster.ts';
import { podIssues } from '../../templates/kubernetes/pod-security.ts';
import { checkParameters } from '../../templates/language/parameters.ts';
import { parseTemplate } from '../../templates/parse.ts';
import { renderTemplate } from '../../templates/render.ts';

/** What we say of manifests without a cluster, beside what a real one says; nothing is made but namespaces. */
const unique = `templates-${process.pid}-${Date.now().toString(36)}`;
const levels = ['baseline', 'restricted'] as const;
const namespaces = levels.map(
  (level): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: {
      name: `${unique}-${level}`,
      labels: { 'cde.dev/test': unique, 'pod-security.kubernetes.io/enforce': level },
    },
  }),
);

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await openTestCluster();
  for (const namespace of namespaces) await cluster.create(namespace);
  // A pod is refused until the namespace has its account.
  for (const { metadata } of namespaces) {
    await vi.waitFor(
      async () => {
        const account = {
          apiVersion: 'v1',
          kind: 'ServiceAccount',
          namespace: metadata.name,
          name: 'default',
        };
        expect(await cluster.get(account)).not.toBeNull();
      },
      { timeout: 20_000, interval: 100 },
    );
  }
});
afterAll(async () => {
  for (const namespace of namespaces) await cluster?.removeObject(namespace);
});

interface Security {
  [key: string]: unknown;
}
const pod = (container: Security = {}, spec: Security = {}, more: Security = {}) => ({
  containers: [
    {
      name: 'c',
      image: 'a:1',
      ...more,
      securityContext: {
        allowPrivilegeEscalation: false,
        runAsNonRoot: true,
        capabilities: { drop: ['ALL'] },
        seccompProfile: { type: 'RuntimeDefault' },
        ...container,
      },
    },
  ],
  ...spec,
});
const volume = (source: Security) => pod({}, { volumes: [{ name: 'v', ...source }] });

const pods: Record<string, Security> = {
  'nothing special': pod(),
  'no context at all': { containers: [{ name: 'c', image: 'a:1' }] },
  'context of the pod': {
    securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [
      {
        name: 'c',
        image: 'a:1',
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
      },
    ],
  },
  'an init container without': { ...pod(), initContainers: [{ name: 'i', image: 'a:1' }] },
  hostNetwork: pod({}, { hostNetwork: true }),
  hostPID: pod({}, { hostPID: true }),
  hostIPC: pod({}, { hostIPC: true }),
  privileged: pod({ privileged: true, allowPrivilegeEscalation: true }),
  hostPort: pod({}, {}, { ports: [{ containerPort: 80, hostPort: 80 }] }),
  port: pod({}, {}, { ports: [{ containerPort: 80 }] }),
  root: pod({ runAsUser: 0, runAsNonRoot: undefined }),
  'root, and yet not': pod({ runAsUser: 0 }),
  'root in the pod': pod({}, { securityContext: { runAsUser: 0 } }),
  'a user': pod({ runAsUser: 1000 }),
  escalation: pod({ allowPrivilegeEscalation: true }),
  'no seccomp': pod({ seccompProfile: undefined }),
  unconfined: pod({ seccompProfile: { type: 'Unconfined' } }),
  'its own seccomp': pod({ seccompProfile: { type: 'Localhost', localhostProfile: 'x' } }),
  'AppArmor unconfined': pod({ appArmorProfile: { type: 'Unconfined' } }),
  'no capabilities': pod({ capabilities: undefined }),
  'one capability dropped': pod({ capabilities: { drop: ['CHOWN'] } }),
  'a capability': pod({ capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] } }),
  'a baseline capability': pod({ capabilities: { drop: ['ALL'], add: ['CHOWN'] } }),
  'a great capability': pod({ capabilities: { drop: ['ALL'], add: ['SYS_ADMIN'] } }),
  procMount: pod({ procMount: 'Unmasked' }, { hostUsers: false }),
  'root of a user namespace': pod({ runAsUser: 0, runAsNonRoot: undefined }, { hostUsers: false }),
  'a safe sysctl': pod({}, { securityContext: { sysctls: [{ name: 'net.ipv4.tcp_rmem', value: '1' }] } }),
  'a sysctl': pod({}, { securityContext: { sysctls: [{ name: 'net.core.somaxconn', value: '1' }] } }),
  'an SELinux type': pod({ seLinuxOptions: { type: 'spc_t' } }),
  'a container type': pod({ seLinuxOptions: { type: 'container_t' } }),
  'an SELinux user': pod({ seLinuxOptions: { user: 'u' } }),
  hostPath: volume({ hostPath: { path: '/' } }),
  nfs: volume({ nfs: { server: 'a', path: '/' } }),
  iscsi: volume({ iscsi: { targetPortal: 'a', iqn: 'iqn.2001-04.com.example:x', lun: 0 } }),
  emptyDir: volume({ emptyDir: {} }),
  claim: volume({ persistentVolumeClaim: { claimName: 'a' } }),
  projected: volume({ projected: { sources: [] } }),
  ephemeral: volume({
    ephemeral: {
      volumeClaimTemplate: {
        spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
      },
    },
  }),
};

describe.each(levels)('podSecurity: %s', (level) => {
  test.each(Object.entries(pods))('%s', async (_, spec) => {
    const name = 'probe';
    const said = await cluster
      .apply(
        {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name, namespace: `${unique}-${level}` },
          spec: spec as Kube<'Pod'>['spec'],
        },
        { dryRun: true },
      )
      .then(
        () => 'permitted',
        (error: KubeError) => (error.message.includes('violates PodSecurity') ? 'refused' : error.message),
      );
    const issues = podIssues(JSON.parse(JSON.stringify(spec)), ['spec'], level);
    expect({ said, issues }).toEqual({
      said: issues.length > 0 ? 'refused' : 'permitted',
      issues: expect.anything(),
    });
  });
});

test('the cluster takes the manifests of the starter template', async () => {
  const folder = fileURLToPath(new URL('../../../templates/kubernetes', import.meta.url));
  const files = Object.fromEntries(
    ['template.yaml', ...readdirSync(`${folder}/manifests`).map((name) => `manifests/${name}`)].map(
      (name) => [name, readFileSync(`${folder}/${name}`, 'utf8')],
    ),
  );
  const template = parseTemplate(files).template!;
  const checked = checkParameters(template.parameters, {});
  if ('issues' in checked) throw new Error(JSON.stringify(checked.issues));
  const rendered = renderTemplate(template, checked.values, {
    workspace: { id: '0197a000-0000-7000-8000-000000000001', name: 'web', owner: 'ada' },
    owner: { name: 'Ada', email: '' },
  });
  if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults));
  expect(rendered.ok.manifests).not.toHaveLength(0);
  for (const manifest of rendered.ok.manifests ?? []) {
    const object = { ...manifest, metadata: { ...manifest.metadata, namespace: `${unique}-baseline` } };
    expect(await cluster.apply(object, { dryRun: true })).toMatchObject({
      kind: manifest.kind,
    });
  }
});
