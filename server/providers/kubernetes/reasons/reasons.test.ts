import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Kube, KubeMetadata } from '../api/models.ts';
import { explainRejection } from './admission.ts';
import { explain, explainEnd, type Start } from './explain.ts';
import { parseUnschedulable } from './scheduling.ts';

/**
 * Objects that reasons.kube.test.ts captured from a real cluster (`testing/*.json`), with the expected reasons; and messages from
 * Kubernetes' sources that a single node cannot produce.
 */
interface Captured {
  input: Pick<Start, 'pod' | 'events' | 'claims' | 'statefulSet'>;
  lastLines?: string;
  expected: { code: string; message: string; fatal: boolean } | null;
  end?: { cause: string; message: string };
}
const folder = join(import.meta.dirname, '../testing');
const files = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.json')) : [];

describe('captured from a cluster', () => {
  test.each(files)('%s', (name) => {
    const { input, lastLines, expected, end } = JSON.parse(
      readFileSync(join(folder, name), 'utf8'),
    ) as Captured;
    // Only warnings are watched, so they have to be enough.
    const warnings = input.events.filter(({ type }) => type === 'Warning');
    for (const events of [input.events, warnings]) {
      const reason = explain({ ...input, events, ...(lastLines !== undefined && { lastLines }) });
      if (expected === null) expect(reason).toBeNull();
      else expect(reason).toMatchObject(expected);
      if (end) expect(explainEnd(input.pod!, events)).toEqual(end);
    }
  });
});

const start = Date.parse('2026-03-01T10:00:00Z');
const at = (seconds: number) => new Date(start + seconds * 1000).toISOString();
let counter = 0;
function event(
  reason: string,
  message: string,
  of: Partial<KubeMetadata> & { kind: string },
  seconds = 10,
): Kube<'Event'> {
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: `event-${++counter}` },
    involvedObject: { kind: of.kind, name: of.name, uid: of.uid },
    type: 'Warning',
    reason,
    message,
    lastTimestamp: at(seconds),
    source: { component: 'test' },
  };
}
const podRef = { kind: 'Pod', name: 'agent-0', uid: 'pod-1' };
function pod(status: object, spec: object = {}, metadata: object = {}): Kube<'Pod'> {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'agent-0', namespace: 'cde-ada-web', uid: 'pod-1', ...metadata },
    spec: {
      nodeName: 'n1',
      containers: [
        {
          name: 'agent',
          image: 'registry.example.com/team/dev:7',
          resources: { requests: { cpu: '2', memory: '4Gi' }, limits: { cpu: '4', memory: '4Gi' } },
        },
      ],
      ...spec,
    },
    status: { phase: 'Pending', ...status },
  };
}
const waiting = (reason: string, message = '') =>
  pod({ containerStatuses: [{ name: 'agent', restartCount: 0, state: { waiting: { reason, message } } }] });
const ended = (terminated: object, more: object = {}) =>
  pod({
    phase: 'Running',
    containerStatuses: [
      {
        name: 'agent',
        restartCount: 1,
        state: {
          waiting: { reason: 'CrashLoopBackOff', message: 'back-off 10s restarting failed container' },
        },
        lastState: { terminated },
        ...more,
      },
    ],
  });
const unscheduled = (message: string, spec: object = {}) =>
  pod(
    { conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message }] },
    { nodeName: undefined, ...spec },
  );
function claim(phase: string, more: object = {}, spec: object = {}): Kube<'PersistentVolumeClaim'> {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'home', uid: 'claim-1', ...more },
    spec: { resources: { requests: { storage: '20Gi' } }, ...spec },
    status: { phase },
  };
}
const claimRef = { kind: 'PersistentVolumeClaim', name: 'home', uid: 'claim-1' };
const statefulSet: Kube<'StatefulSet'> = {
  apiVersion: 'apps/v1',
  kind: 'StatefulSet',
  metadata: { name: 'agent', uid: 'set-1', generation: 3 },
  status: { replicas: 0, observedGeneration: 3 },
};
const setRef = { kind: 'StatefulSet', name: 'agent', uid: 'set-1' };
const look = (
  object: Start['pod'],
  events: Start['events'] = [],
  claims: Start['claims'] = [],
  more: { lastLines?: string; since?: Date; now?: Date; statefulSet?: Kube<'StatefulSet'> } = {},
) => explain({ pod: object, events, claims, statefulSet, ...more });

describe('images', () => {
  const pull =
    'failed to pull and unpack image "registry.example.com/team/dev:7": failed to resolve reference "registry.example.com/team/dev:7": ';
  test.each([
    [`${pull}registry.example.com/team/dev:7: not found`, 'image-not-found', true],
    [
      `${pull}unexpected status from HEAD request to https://x/v2/: 401 Unauthorized`,
      'image-no-access',
      true,
    ],
    [
      `${pull}pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed`,
      'image-no-access',
      true,
    ],
    [
      `${pull}failed to do request: Head "https://r/v2/": dial tcp: lookup r: no such host`,
      'image-registry-unreachable',
      false,
    ],
    [
      `${pull}failed to do request: Head "https://r/v2/": dial tcp 10.0.0.1:443: i/o timeout`,
      'image-registry-unreachable',
      false,
    ],
    [
      `${pull}failed to do request: Head "https://r/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority`,
      'image-registry-untrusted',
      false,
    ],
    ['failed to extract layer sha256:1: write /x: no space left on device: unknown', 'image-no-disk', false],
    [`${pull}unexpected status from HEAD request: 429 Too Many Requests`, 'image-rate-limited', false],
    ['no match for platform in manifest sha256:1: not found', 'image-platform', true],
  ])('%s', (said, code, fatal) => {
    for (const message of [
      `rpc error: code = Unknown desc = ${said}`,
      `Back-off pulling image "registry.example.com/team/dev:7": ErrImagePull: rpc error: code = Unknown desc = ${said}`,
    ]) {
      const reason = look(waiting('ImagePullBackOff', message));
      expect(reason).toMatchObject({ code, fatal, detail: said });
      expect(reason!.message).toMatch(
        /^The image registry\.example\.com\/team\/dev:7 cannot be pulled: .+\.$/,
      );
      expect(reason!.hint).toBeTruthy();
    }
  });

  test('the pull secrets that did not help are named', () => {
    const secret = waiting('ErrImagePull', 'x: 403 Forbidden');
    secret.spec!.imagePullSecrets = [{ name: 'registry' }];
    expect(look(secret)!.detail).toContain('Pull secrets that were used: registry.');
  });

  test('an init container that is not there yet comes before those that wait for it', () => {
    const both = pod(
      {
        initContainerStatuses: [
          {
            name: 'deliver',
            state: { waiting: { reason: 'ErrImagePull', message: 'cde/agent:1: not found' } },
          },
        ],
        containerStatuses: [{ name: 'agent', state: { waiting: { reason: 'PodInitializing' } } }],
      },
      { initContainers: [{ name: 'deliver', image: 'cde/agent:1' }] },
    );
    expect(look(both)).toMatchObject({
      code: 'image-not-found',
      message: expect.stringContaining('cde/agent:1'),
    });
  });
});

describe('volumes', () => {
  test.each([
    [
      'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) agent-0',
      'The volume pvc-1 is still attached to another node, for agent-0.',
    ],
    [
      'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node and can\'t be attached to another',
      'The volume pvc-1 is still attached to another node.',
    ],
  ])('%s', (said, message) => {
    const creating = waiting('ContainerCreating');
    const timeout = event(
      'FailedMount',
      'Unable to attach or mount volumes: unmounted volumes=[home], unattached volumes=[], failed to process volumes=[]: timed out waiting for the condition',
      podRef,
      130,
    );
    const events = [event('FailedAttachVolume', said, podRef), timeout];
    expect(look(creating, events)).toMatchObject({
      code: 'volume-attached-elsewhere',
      message,
      fatal: false,
    });
    // Attached since: no longer the reason.
    const attached = event(
      'SuccessfulAttachVolume',
      'AttachVolume.Attach succeeded for volume "pvc-1" ',
      podRef,
      200,
    );
    expect(look(creating, [...events.slice(0, 1), attached])).toBeNull();
    // Of a pod that was there before under the same name.
    expect(look(creating, [event('FailedAttachVolume', said, { ...podRef, uid: 'pod-0' })])).toBeNull();
  });

  test('later events do not hide a failed mount', () => {
    const events = [
      event(
        'FailedMount',
        'MountVolume.SetUp failed for volume "config" : configmap "settings" not found',
        podRef,
      ),
      event(
        'FailedMount',
        'Unable to attach or mount volumes: unmounted volumes=[config]: timed out waiting for the condition',
        podRef,
        90,
      ),
    ];
    expect(look(waiting('ContainerCreating'), events)).toMatchObject({
      code: 'volume-source-missing',
      message: 'The configmap settings that the workspace mounts does not exist.',
    });
    const running = pod({
      phase: 'Running',
      containerStatuses: [{ name: 'agent', ready: true, state: { running: {} } }],
    });
    expect(look(running, events)).toBeNull();
  });

  test.each([
    ['ProvisioningFailed', 'storageclass.storage.k8s.io "fast" not found', 'storage-class-missing', true],
    [
      'FailedBinding',
      'no persistent volumes available for this claim and no storage class is set',
      'storage-class-missing',
      false,
    ],
    [
      'ProvisioningFailed',
      'failed to provision volume with StorageClass "fast": rpc error: code = ResourceExhausted desc = pool is full',
      'storage-full',
      false,
    ],
    [
      'ProvisioningFailed',
      'failed to provision volume with StorageClass "fast": rpc error: code = Internal desc = boom',
      'volume-not-provisioned',
      false,
    ],
    ['FailedBinding', 'volume "pv-1" already bound to a different claim.', 'volume-taken', true],
    [
      'ExternalProvisioning',
      "Waiting for a volume to be created either by the external provisioner 'csi.example.com' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
      'volume-pending',
      false,
    ],
  ])('an unbound claim explains the pending pod: %s %s', (reason, said, code, fatal) => {
    const pending = unscheduled(
      '0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found',
    );
    const events = [event(reason, said, claimRef), event('FailedScheduling', 'x', podRef, 20)];
    expect(look(pending, events, [claim('Pending')])).toMatchObject({ code, fatal, detail: said });
  });

  test('a claim that waits for its first consumer is not the cause', () => {
    const events = [
      event('WaitForFirstConsumer', 'waiting for first consumer to be created before binding', claimRef),
    ];
    expect(look(unscheduled(''), events, [claim('Pending')])).toBeNull();
    expect(
      look(unscheduled('0/1 nodes are available: 1 Insufficient memory.'), events, [claim('Pending')]),
    ).toMatchObject({ code: 'no-node-fits' });
  });

  test('a lost volume is reported first', () => {
    expect(look(waiting('ContainerCreating'), [], [claim('Lost')])).toMatchObject({
      code: 'volume-lost',
      fatal: true,
    });
  });
});

describe('nodes', () => {
  test("the scheduler's message is parsed", () => {
    expect(
      parseUnschedulable(
        "0/5 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {team: a, b}, 2 node(s) didn't match Pod's node affinity/selector, 1 Too many pods. no new claims to deallocate, preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling.",
      ),
    ).toEqual({
      total: 5,
      whole: null,
      shortages: [
        { nodes: 1, what: 'Insufficient cpu' },
        { nodes: 1, what: 'node(s) had untolerated taint {team: a, b}' },
        { nodes: 2, what: "node(s) didn't match Pod's node affinity/selector" },
        { nodes: 1, what: 'Too many pods' },
      ],
    });
  });

  test.each([
    [
      '0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.',
      'No node fits: 2 of 3 have too little memory free (4Gi requested); 1 of 3 has too little CPU free (2 requested).',
      'system',
    ],
    [
      "0/3 nodes are available: 1 node(s) had untolerated taint {dedicated: gpu}, 2 node(s) didn't match Pod's node affinity/selector.",
      'No node fits: 2 of 3: not the requested labels (disk=ssd); 1 of 3 has a taint that is not tolerated (dedicated=gpu).',
      'user',
    ],
    [
      '0/1 nodes are available: 1 Too many pods.',
      'No node fits: the only one has too many pods already.',
      'system',
    ],
    [
      '0/1 nodes are available: 1 node(s) were unschedulable.',
      'No node fits: the only one: closed for new pods (cordoned).',
      'system',
    ],
    [
      '0/2 nodes are available: 2 Insufficient nvidia.com/gpu.',
      'No node fits: 2 of 2 have too little nvidia.com/gpu free.',
      'system',
    ],
  ])('%s', (said, message, fault) => {
    expect(look(unscheduled(said, { nodeSelector: { disk: 'ssd' } }))).toMatchObject({
      code: 'no-node-fits',
      message,
      fault,
      detail: said,
      fatal: false,
    });
  });

  test('the amounts are the sum of all containers', () => {
    const containers = [
      { name: 'a', resources: { requests: { cpu: '500m', memory: '1Gi' } } },
      { name: 'b', resources: { requests: { cpu: '1', memory: '512Mi' } } },
    ];
    expect(
      look(unscheduled('0/1 nodes are available: 1 Insufficient cpu.', { containers }))!.message,
    ).toContain('(1500m requested)');
    expect(
      look(unscheduled('0/1 nodes are available: 1 Insufficient memory.', { containers }))!.message,
    ).toContain('(1536Mi requested)');
  });

  test('the location of the volume is reported before other reasons', () => {
    expect(
      look(
        unscheduled(
          "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) had untolerated taint(s).",
        ),
      ),
    ).toMatchObject({ code: 'volume-elsewhere', fault: 'system' });
    expect(look(unscheduled('no nodes available to schedule pods'))).toMatchObject({ code: 'no-nodes' });
  });
});

describe('refusals', () => {
  const refused = (said: string, seconds = 10) =>
    event('FailedCreate', `create Pod agent-0 in StatefulSet agent failed error: ${said}`, setRef, seconds);

  test('a quota explains the missing pod; what can never fit is fatal', () => {
    const said = (used: string) =>
      `pods "agent-0" is forbidden: exceeded quota: cde, requested: limits.memory=4Gi,pods=1, used: limits.memory=${used},pods=4, limited: limits.memory=6Gi,pods=4`;
    expect(look(null, [refused(said('3Gi'))], [claim('Pending')])).toMatchObject({
      code: 'quota-exceeded',
      message:
        'The quota of the namespace does not leave room for the pod agent-0: memory: 4Gi requested, 3Gi of 6Gi used; pods: 1 requested, 4 of 4 used.',
      fault: 'user',
      fatal: false,
    });
    expect(explainRejection('pod x', said('0').replace('=6Gi', '=2Gi'))).toMatchObject({ fatal: true });
    // As Kubernetes writes what it was given as a number.
    expect(explainRejection('pod x', said('268435456'))!.message).toContain(
      '4Gi requested, 256Mi of 6Gi used',
    );
  });

  test('a rejection in the second of the update is reported but not fatal, as it may be older', () => {
    const never = refused(
      'pods "agent-0" is forbidden: exceeded quota: cde, requested: pods=2, used: pods=0, limited: pods=1',
    );
    const since = new Date(start + 10_400);
    expect(look(null, [never], [], { since, now: new Date(start + 11_000) })).toMatchObject({ fatal: false });
    expect(look(null, [never], [], { since, now: new Date(start + 40_000) })).toMatchObject({ fatal: true });
    expect(look(null, [never], [], { since: new Date(start + 9_000) })).toMatchObject({ fatal: true });
  });

  test('a rejection that was fixed is no longer the reason', () => {
    const old = refused(
      'pods "agent-0" is forbidden: exceeded quota: cde, requested: pods=1, used: pods=1, limited: pods=1',
    );
    expect(
      look(null, [
        old,
        event('SuccessfulCreate', 'create Pod agent-0 in StatefulSet agent successful', setRef, 20),
      ]),
    ).toBeNull();
    expect(look(null, [old], [], { since: new Date(start + 30_000) })).toBeNull();
    expect(
      look(null, [old], [], {
        statefulSet: { ...statefulSet, status: { replicas: 0, observedGeneration: 2 } },
      }),
    ).toBeNull();
    expect(look(null, [event('FailedCreate', old.message!, { ...setRef, name: 'database' })])).toBeNull();
  });

  test.each([
    [
      'pods "agent-0" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "agent" must set securityContext.allowPrivilegeEscalation=false)',
      'pod-security-refused',
      'The pod agent-0 is refused: the namespace requires Pod Security "restricted".',
      true,
    ],
    [
      'admission webhook "policy.example.com" denied the request: images must come from registry.example.com',
      'admission-refused',
      "The cluster's policy refuses the pod agent-0: images must come from registry.example.com",
      true,
    ],
    [
      'Internal error occurred: failed calling webhook "policy.example.com": failed to call webhook: Post "https://policy.svc:443/?timeout=10s": no endpoints available for service "policy"',
      'admission-webhook-away',
      'The cluster cannot admit the pod agent-0: its webhook policy.example.com does not answer.',
      false,
    ],
    [
      'pods "agent-0" is forbidden: [maximum memory usage per Container is 1Gi, but limit is 4Gi]',
      'limit-range-refused',
      'The pod agent-0 is outside of what the namespace permits: maximum memory usage per Container is 1Gi, but limit is 4Gi.',
      true,
    ],
    [
      'pods "agent-0" is forbidden: error looking up service account cde-ada-web/developer: serviceaccount "developer" not found',
      'service-account-missing',
      'The service account developer of the namespace is missing.',
      false,
    ],
    [
      'pods "agent-0" is forbidden: failed quota: cde: must specify limits.cpu for: agent; limits.memory for: agent',
      'quota-needs-limits',
      'The quota cde requires every container to set requests and limits; the pod agent-0 does not.',
      true,
    ],
    [
      "pods \"agent-0\" is forbidden: ValidatingAdmissionPolicy 'no-latest' with binding 'all' denied request: no :latest here",
      'admission-refused',
      "The cluster's policy refuses the pod agent-0: no :latest here",
      true,
    ],
    [
      'pods "agent-0" is forbidden: unable to create new content in namespace cde-ada-web because it is being terminated',
      'namespace-terminating',
      'The namespace is being deleted.',
      false,
    ],
  ])('%s', (said, code, message, fatal) => {
    expect(look(null, [refused(said)])).toMatchObject({ code, message, fatal });
  });
});

describe('containers', () => {
  test('a crash has its last lines and the meaning of its code', () => {
    expect(look(ended({ exitCode: 127 }), [], [], { lastLines: 'sh: nope: not found\n' })).toMatchObject({
      code: 'crashed',
      message: 'The container agent exited with code 127 (command not found).',
      detail: 'sh: nope: not found',
      fatal: false,
    });
    expect(look(ended({ exitCode: 139 }, { restartCount: 4 }))).toMatchObject({
      message: 'The container agent was killed by SIGSEGV, 4 times.',
      fatal: true,
    });
  });

  test.each([
    ['exec /usr/bin/tool: exec format error', 'wrong-architecture'],
    [
      'failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH: unknown',
      'command-not-found',
    ],
    [
      'failed to create containerd task: OCI runtime create failed: exec: "/etc/passwd": permission denied: unknown',
      'command-not-executable',
    ],
  ])('%s', (said, code) => {
    expect(look(ended({ exitCode: 128, reason: 'StartError', message: said }))).toMatchObject({
      code,
      fatal: true,
    });
    expect(look(ended({ exitCode: 255 }), [], [], { lastLines: said })).toMatchObject({ code, fatal: true });
  });

  test('out of memory, with the limit', () => {
    expect(look(ended({ exitCode: 137, reason: 'OOMKilled' }))).toMatchObject({
      code: 'out-of-memory',
      message: 'The container agent was killed: out of memory (limit 4Gi).',
      fault: 'user',
    });
  });

  test('a container that is ready again has no reason', () => {
    expect(
      look(ended({ exitCode: 137, reason: 'OOMKilled' }, { ready: true, state: { running: {} } })),
    ).toBeNull();
  });

  test('our init containers report their own reason', () => {
    const failed = (message: string) =>
      pod(
        {
          initContainerStatuses: [
            {
              name: 'prepare',
              restartCount: 1,
              state: { waiting: { reason: 'CrashLoopBackOff' } },
              lastState: { terminated: { exitCode: 1, message } },
            },
          ],
          containerStatuses: [{ name: 'agent', state: { waiting: { reason: 'PodInitializing' } } }],
        },
        { initContainers: [{ name: 'prepare', image: 'x' }] },
      );
    expect(look(failed('image-without-shell: The image has no /bin/sh.'))).toMatchObject({
      code: 'image-without-shell',
      message: 'The image has no /bin/sh.',
      fatal: true,
    });
    expect(look(failed('{"code":"home-full","message":"Full.","fault":"system"}'))).toMatchObject({
      code: 'home-full',
      fault: 'system',
    });
    expect(look(failed('mkdir: cannot create directory'))).toMatchObject({
      code: 'init-failed',
      message: 'The init container prepare exited with code 1.',
      detail: 'mkdir: cannot create directory',
    });
  });

  test.each([
    [
      'container has runAsNonRoot and image will run as root (pod: "x", container: agent)',
      'image-runs-as-root',
    ],
    ['secret "database" not found', 'env-source-missing'],
    ["couldn't find key password in Secret cde-ada-web/database", 'env-source-missing'],
  ])('%s', (said, code) => {
    expect(look(waiting('CreateContainerConfigError', said))).toMatchObject({ code, detail: said });
  });

  test.each([
    [
      'rpc error: code = Unknown desc = failed to setup network for sandbox "1": plugin type="bridge" failed (add): failed to allocate for range 0: no IP addresses available in range set: 10.1.0.1-10.1.0.254',
      'no-pod-address',
    ],
    [
      'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "1": plugin type="calico" failed (add): error getting ClusterInformation',
      'pod-network-failed',
    ],
    [
      'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "gvisor" is configured: RuntimeHandler "gvisor" not supported',
      'runtime-class-missing',
    ],
  ])('%s', (said, code) => {
    expect(look(waiting('ContainerCreating'), [event('FailedCreatePodSandBox', said, podRef)])).toMatchObject(
      { code },
    );
  });
});

describe('ends', () => {
  const disrupted = (reason: string, message = '') =>
    pod({ phase: 'Running', conditions: [{ type: 'DisruptionTarget', status: 'True', reason, message }] });
  test.each([
    ['EvictionByEvictionAPI', 'Eviction API: evicting', 'node-drained', 'The node n1 was drained'],
    [
      'PreemptionByScheduler',
      'default-scheduler: preempting to accommodate a higher priority pod',
      'preempted',
      'Preempted on the node n1 by a pod of higher priority',
    ],
    [
      'DeletionByTaintManager',
      'Taint manager: deleting due to NoExecute taint',
      'node-lost',
      'The node n1 was lost, or closed by a taint',
    ],
    [
      'DeletionByPodGC',
      'PodGC: node no longer exists',
      'node-lost',
      'The node n1 was removed from the cluster',
    ],
    [
      'TerminationByKubelet',
      'Pod was terminated in response to imminent node shutdown.',
      'node-restarted',
      'The node n1 was shut down',
    ],
    [
      'TerminationByKubelet',
      'The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. Container agent was using 3Gi, request is 1Gi, has larger consumption of memory. ',
      'evicted',
      'Evicted from the node n1: its memory ran low; it used 3Gi, with 1Gi requested',
    ],
  ] as const)('%s', (reason, message, cause, words) => {
    expect(explainEnd(disrupted(reason, message))).toEqual({ cause, message: words });
    expect(look(disrupted(reason, message))).toMatchObject({ message: `${words}.`, fatal: false });
  });

  test.each([
    [
      'The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 900Mi. ',
      'Evicted from the node n1: its disk ran full',
    ],
    ['The node had condition: [DiskPressure]. ', 'Evicted from the node n1: its disk ran full'],
    [
      'Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ',
      'Evicted: it wrote more than 1Gi outside of the home',
    ],
    [
      'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". ',
      'Evicted: its scratch volume scratch grew beyond 1Gi',
    ],
  ])('%s', (message, words) => {
    expect(explainEnd(pod({ phase: 'Failed', reason: 'Evicted', message }))).toEqual({
      cause: 'evicted',
      message: words,
    });
  });

  test('a node is lost until it answers again', () => {
    const running = pod({
      phase: 'Running',
      conditions: [{ type: 'Ready', status: 'False', lastTransitionTime: at(60) }],
      containerStatuses: [{ name: 'agent', ready: true, state: { running: {} } }],
    });
    const lost = event('NodeNotReady', 'Node is not ready', podRef, 60);
    expect(look(running, [lost])).toMatchObject({
      code: 'node-lost',
      message: 'The node n1 was lost (not ready).',
    });
    const back = { ...event('Pulled', 'x', podRef, 90), source: { component: 'kubelet' } };
    expect(look(running, [lost, back])).toBeNull();
  });

  test('processes: out of memory, signals, codes; a pod that was deleted', () => {
    expect(explainEnd(ended({ exitCode: 137, reason: 'OOMKilled' }))).toEqual({
      cause: 'out-of-memory',
      message: 'The workspace ran out of memory (limit 4Gi)',
    });
    expect(explainEnd(ended({ exitCode: 143 }))).toEqual({
      cause: 'agent-exited',
      message: 'The agent was killed by SIGTERM',
    });
    expect(explainEnd(ended({ exitCode: 3 }))).toEqual({
      cause: 'agent-exited',
      message: 'The agent exited with code 3',
    });
    const deleted = ended({ exitCode: 143 });
    deleted.metadata.deletionTimestamp = at(1);
    expect(explainEnd(deleted)).toEqual({
      cause: 'removed',
      message: 'The pod was deleted, not by cde',
    });
  });
});
