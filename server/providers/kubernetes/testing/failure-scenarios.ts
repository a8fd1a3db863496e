import type { Container, Kube, KubeObject } from '../api/models.ts';

type PodSpec = NonNullable<Kube<'Pod'>['spec']>;

/** A failure that is provoked in a namespace of its own, and how it has to be explained. */
export interface FailureScenario {
  name: string;
  code: string;
  message: RegExp;
  fatal: boolean;
  /** Labels of the namespace. */
  labels?: Record<string, string>;
  /** Created before the StatefulSet, in the namespace or cluster-wide. */
  before?: KubeObject[];
  pod?: Partial<PodSpec>;
  container?: Partial<Container>;
  /** The claim `home`, mounted at /home. */
  claim?: Kube<'PersistentVolumeClaim'>['spec'];
  /** Read the log of this container for its last lines. */
  log?: string;
  /** The message of `explainEnd` for the same pod. */
  end?: RegExp;
  /** Only works if the nodes run on this machine. */
  nodesAreLocal?: true;
}

const object = (
  apiVersion: string,
  kind: string,
  name: string,
  rest: object,
  clusterWide = false,
): KubeObject => ({
  apiVersion,
  kind,
  metadata: { name, ...(clusterWide && { clusterWide: true }) },
  ...rest,
});
const shell = (script: string) => ({ command: ['/bin/sh', '-c', script] });
const small = { requests: { cpu: '10m', memory: '32Mi' }, limits: { memory: '32Mi' } };
const claimOf = (storageClassName: string) => ({
  storageClassName,
  accessModes: ['ReadWriteOnce'],
  resources: { requests: { storage: '64Mi' } },
});

/** `unique` is part of the names of what is not in a namespace; `registry` HOST:PORT of the test's own registry. */
export function failureScenarios(unique: string, registry: string): FailureScenario[] {
  return [
    {
      name: 'image-not-on-node',
      code: 'image-not-on-node',
      message: /^The image cde-test\/nowhere:1 is not on the node \S+, and must not be pulled\.$/,
      fatal: true,
      container: { image: 'cde-test/nowhere:1', imagePullPolicy: 'Never' },
    },
    {
      name: 'image-invalid-name',
      code: 'image-invalid-name',
      message: /^Team\/Dev:1 is not the name of an image\.$/,
      fatal: true,
      container: { image: 'Team/Dev:1' },
    },
    {
      name: 'image-registry-unreachable',
      code: 'image-registry-unreachable',
      message: /^The image 127\.0\.0\.1:1\/dev:1 cannot be pulled: its registry does not answer\.$/,
      fatal: false,
      container: { image: '127.0.0.1:1/dev:1', imagePullPolicy: 'IfNotPresent' },
    },
    {
      name: 'image-not-found',
      code: 'image-not-found',
      message: /cannot be pulled: the registry has no such image or tag\.$/,
      fatal: true,
      container: { image: `${registry}/dev:1` },
      nodesAreLocal: true,
    },
    {
      name: 'image-no-access',
      code: 'image-no-access',
      message: /cannot be pulled: the registry refuses it: it does not exist, or may not be pulled/,
      fatal: true,
      container: { image: `${registry}/secret:1` },
      nodesAreLocal: true,
    },
    {
      name: 'image-of-init-container',
      code: 'image-not-on-node',
      message: /cde-test\/no-agent:1/,
      fatal: true,
      pod: { initContainers: [{ name: 'deliver', image: 'cde-test/no-agent:1', imagePullPolicy: 'Never' }] },
    },
    {
      name: 'configmap-missing',
      code: 'volume-source-missing',
      message: /^The configmap settings that the workspace mounts does not exist\.$/,
      fatal: false,
      pod: { volumes: [{ name: 'settings', configMap: { name: 'settings' } }] },
      container: { volumeMounts: [{ name: 'settings', mountPath: '/settings' }] },
    },
    {
      name: 'storage-class-missing',
      code: 'storage-class-missing',
      message: /^The cluster has no storage class cde-nowhere, which the claim home asks for\.$/,
      fatal: true,
      claim: claimOf('cde-nowhere'),
    },
    {
      name: 'storage-class-none',
      code: 'storage-class-missing',
      message: /^No volume is free for the claim home, and its storage class is turned off\.$/,
      fatal: false,
      claim: claimOf(''),
    },
    {
      name: 'provisioner-silent',
      code: 'volume-pending',
      message: /^The claim home is waiting for a volume from cde\.dev\/nobody\.$/,
      fatal: false,
      before: [
        object(
          'storage.k8s.io/v1',
          'StorageClass',
          `${unique}-silent`,
          { provisioner: 'cde.dev/nobody', volumeBindingMode: 'Immediate' },
          true,
        ),
      ],
      claim: claimOf(`${unique}-silent`),
    },
    {
      name: 'waits-for-consumer-that-fits-nowhere',
      code: 'no-node-fits',
      message: /too little memory free \(4Ti requested\)/,
      fatal: false,
      before: [
        object(
          'storage.k8s.io/v1',
          'StorageClass',
          `${unique}-first`,
          { provisioner: 'cde.dev/nobody', volumeBindingMode: 'WaitForFirstConsumer' },
          true,
        ),
      ],
      claim: claimOf(`${unique}-first`),
      container: { resources: { requests: { memory: '4Ti' } } },
    },
    {
      name: 'no-node-memory',
      code: 'no-node-fits',
      message: /^No node fits: .*too little memory free \(4Ti requested\).*\.$/,
      fatal: false,
      container: { resources: { requests: { cpu: '10m', memory: '4Ti' } } },
    },
    {
      name: 'no-node-cpu',
      code: 'no-node-fits',
      message: /^No node fits: .*too little CPU free \(900 requested\).*\.$/,
      fatal: false,
      container: { resources: { requests: { cpu: '900' } } },
    },
    {
      name: 'no-node-selector',
      code: 'no-node-fits',
      message: /not the requested labels \(cde\.dev\/disk=gold\)/,
      fatal: false,
      pod: { nodeSelector: { 'cde.dev/disk': 'gold' } },
    },
    {
      name: 'quota-never',
      code: 'quota-exceeded',
      message:
        /^The quota of the namespace does not leave room for the pod agent-0: requested memory: 32Mi requested, 0 of 16Mi used\.$/,
      fatal: true,
      before: [object('v1', 'ResourceQuota', 'cde', { spec: { hard: { 'requests.memory': '16Mi' } } })],
    },
    {
      name: 'quota-held',
      code: 'quota-exceeded',
      message: /^The quota of the namespace .*pods: 1 requested, 1 of 1 used\.$/,
      fatal: false,
      before: [
        object('v1', 'ResourceQuota', 'cde', { spec: { hard: { pods: '1' } } }),
        object('v1', 'Pod', 'other', {
          spec: {
            nodeSelector: { 'cde.dev/disk': 'gold' },
            containers: [{ name: 'other', image: 'cde-test/x:1' }],
          },
        }),
      ],
    },
    {
      name: 'quota-needs-limits',
      code: 'quota-needs-limits',
      message:
        /^The quota cde requires every container to set requests and limits; the pod agent-0 does not\.$/,
      fatal: true,
      before: [object('v1', 'ResourceQuota', 'cde', { spec: { hard: { 'limits.cpu': '4' } } })],
    },
    {
      name: 'limit-range',
      code: 'limit-range-refused',
      message:
        /outside of what the namespace permits: maximum memory usage per Container is 16Mi, but limit is 32Mi/,
      fatal: true,
      before: [
        object('v1', 'LimitRange', 'cde', {
          spec: { limits: [{ type: 'Container', max: { memory: '16Mi' } }] },
        }),
      ],
    },
    {
      name: 'pod-security',
      code: 'pod-security-refused',
      message: /^The pod agent-0 is refused: the namespace requires Pod Security "restricted"\.$/,
      fatal: true,
      labels: { 'pod-security.kubernetes.io/enforce': 'restricted' },
    },
    {
      name: 'webhook-away',
      code: 'admission-webhook-away',
      message: /^The cluster cannot admit the pod agent-0: its webhook pods\.cde\.dev does not answer\.$/,
      fatal: false,
      labels: { 'cde.dev/test-webhook': unique },
      before: [
        object(
          'admissionregistration.k8s.io/v1',
          'ValidatingWebhookConfiguration',
          `${unique}-webhook`,
          {
            webhooks: [
              {
                name: 'pods.cde.dev',
                clientConfig: { url: 'https://127.0.0.1:1/' },
                rules: [
                  { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] },
                ],
                namespaceSelector: { matchLabels: { 'cde.dev/test-webhook': unique } },
                admissionReviewVersions: ['v1'],
                sideEffects: 'None',
                failurePolicy: 'Fail',
              },
            ],
          },
          true,
        ),
      ],
    },
    {
      name: 'admission-policy',
      code: 'admission-refused',
      message: /^The cluster's policy refuses the pod agent-0: no pods on a Sunday$/,
      fatal: true,
      labels: { 'cde.dev/test-policy': unique },
      before: [
        object(
          'admissionregistration.k8s.io/v1',
          'ValidatingAdmissionPolicy',
          `${unique}-policy`,
          {
            spec: {
              failurePolicy: 'Fail',
              matchConstraints: {
                resourceRules: [
                  { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] },
                ],
              },
              validations: [{ expression: 'false', message: 'no pods on a Sunday' }],
            },
          },
          true,
        ),
        object(
          'admissionregistration.k8s.io/v1',
          'ValidatingAdmissionPolicyBinding',
          `${unique}-policy`,
          {
            spec: {
              policyName: `${unique}-policy`,
              validationActions: ['Deny'],
              matchResources: { namespaceSelector: { matchLabels: { 'cde.dev/test-policy': unique } } },
            },
          },
          true,
        ),
      ],
    },
    {
      name: 'service-account-missing',
      code: 'service-account-missing',
      message: /^The service account nobody of the namespace is missing\.$/,
      fatal: false,
      pod: { serviceAccountName: 'nobody' },
    },
    {
      name: 'init-says-why',
      code: 'image-without-shell',
      message: /^The image has no shell\.$/,
      fatal: true,
      pod: {
        initContainers: [
          {
            name: 'prepare',
            image: 'cde-test/debian:12',
            ...shell('printf "image-without-shell: The image has no shell." > /dev/termination-log; exit 1'),
          },
        ],
      },
    },
    {
      name: 'init-failed',
      code: 'init-failed',
      message: /^The init container prepare exited with code 3\.$/,
      fatal: false,
      log: 'prepare',
      pod: {
        initContainers: [
          { name: 'prepare', image: 'cde-test/debian:12', ...shell('echo the disk is on fire >&2; exit 3') },
        ],
      },
    },
    {
      name: 'crash',
      code: 'crashed',
      message: /^The container agent exited with code 127 \(command not found\)/,
      fatal: false,
      log: 'agent',
      container: shell('echo starting; cde-nowhere --serve'),
      end: /^The agent exited with code 127 \(command not found\)$/,
    },
    {
      name: 'crash-by-signal',
      code: 'crashed',
      message: /^The container agent was killed by SIGSEGV/,
      fatal: false,
      log: 'agent',
      container: shell('sh -c "kill -SEGV \\$\\$"; exit $?'),
      end: /^The agent was killed by SIGSEGV$/,
    },
    {
      name: 'command-missing',
      code: 'command-not-found',
      message: /^The image cde-test\/debian:12 cannot run: the command cde-nowhere is not in it\.$/,
      fatal: true,
      container: { command: ['cde-nowhere'] },
    },
    {
      name: 'command-not-executable',
      code: 'command-not-executable',
      message:
        /^The image cde-test\/debian:12 cannot run: the command \/etc\/hostname may not be executed by its user\.$/,
      fatal: true,
      container: { command: ['/etc/hostname'] },
    },
    {
      name: 'wrong-architecture',
      code: 'wrong-architecture',
      message:
        /^The image cde-test\/debian:12 cannot run: it is made for another architecture than the node has/,
      fatal: true,
      log: 'agent',
      before: [
        object('v1', 'ConfigMap', 'tool', {
          binaryData: { tool: Buffer.from('\x7fELF no').toString('base64') },
        }),
      ],
      pod: { volumes: [{ name: 'tool', configMap: { name: 'tool', defaultMode: 0o755 } }] },
      container: { command: ['/tool/tool'], volumeMounts: [{ name: 'tool', mountPath: '/tool' }] },
    },
    {
      name: 'out-of-memory',
      code: 'out-of-memory',
      message: /^The container agent was killed: out of memory \(limit 32Mi\)\.$/,
      fatal: false,
      container: { command: ['tail', '/dev/zero'], resources: small },
      end: /^The workspace ran out of memory \(limit 32Mi\)$/,
    },
    {
      name: 'runs-as-root',
      code: 'image-runs-as-root',
      message: /^The image cde-test\/debian:12 would run as root, which is not permitted here\.$/,
      fatal: true,
      container: { securityContext: { runAsNonRoot: true } },
    },
    {
      name: 'secret-missing',
      code: 'env-source-missing',
      message: /^The secret database that the container agent needs does not exist\.$/,
      fatal: false,
      container: { envFrom: [{ secretRef: { name: 'database' } }] },
    },
    {
      name: 'runtime-class',
      code: 'runtime-class-missing',
      message: /does not have the workspace's runtime class\.$/,
      fatal: false,
      before: [
        object('node.k8s.io/v1', 'RuntimeClass', `${unique}-runtime`, { handler: 'cde-nowhere' }, true),
      ],
      pod: { runtimeClassName: `${unique}-runtime` },
    },
    {
      name: 'sysctl-forbidden',
      code: 'node-refused',
      message: /^The node \S+ refused the pod: .*forbidden sysctl: "net\.core\.somaxconn" not allowlisted\.$/,
      fatal: true,
      pod: { securityContext: { sysctls: [{ name: 'net.core.somaxconn', value: '1024' }] } },
      end: /forbidden sysctl/,
    },
    {
      name: 'not-ready',
      code: 'not-ready',
      message: /^The container agent runs but is not ready\.$/,
      fatal: false,
      container: { readinessProbe: { exec: { command: ['false'] }, periodSeconds: 1 } },
    },
  ];
}

/** The StatefulSet `agent` of a scenario, like that of a workspace. */
export function statefulSetOf({ pod, container, claim }: FailureScenario): KubeObject {
  const { volumes = [], ...spec } = pod ?? {};
  const { volumeMounts = [], ...more } = container ?? {};
  return object('apps/v1', 'StatefulSet', 'agent', {
    spec: {
      serviceName: 'agent',
      replicas: 1,
      selector: { matchLabels: { app: 'agent' } },
      template: {
        metadata: { labels: { app: 'agent' } },
        spec: {
          terminationGracePeriodSeconds: 1,
          ...spec,
          volumes: [
            ...volumes,
            ...(claim ? [{ name: 'home', persistentVolumeClaim: { claimName: 'home' } }] : []),
          ],
          containers: [
            {
              name: 'agent',
              image: 'cde-test/debian:12',
              imagePullPolicy: 'IfNotPresent',
              ...shell('exec sleep 1000'),
              resources: small,
              ...more,
              volumeMounts: [...volumeMounts, ...(claim ? [{ name: 'home', mountPath: '/home' }] : [])],
            },
          ],
        },
      },
    },
  });
}
