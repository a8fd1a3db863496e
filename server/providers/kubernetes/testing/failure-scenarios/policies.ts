import { type FailureScenario, object } from './scenario.ts';

/** Pods that the cluster's policies reject. */
export const policyScenarios = (unique: string): FailureScenario[] => [
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
              rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
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
];
