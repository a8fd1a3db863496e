import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname as machine } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { until } from '../../../../tests/kit/until.ts';
import type { KubeObject } from '../api/client.ts';
import { openTestCluster, type TestCluster } from '../testing/cluster.ts';
import { type FailureScenario, statefulSetOf } from '../testing/failure-scenarios/scenario.ts';
import { failureScenarios } from '../testing/failure-scenarios.ts';
import { explain, explainEnd, explainGone, type Start } from './explain.ts';
import type { Reason } from './reading.ts';

/**
 * Provokes each failure on a real cluster. With CDE_CAPTURE=1 the objects are written to testing/*.json, for reasons.test.ts.
 */
const unique = `reasons-${process.pid}-${Date.now().toString(36)}`;
const forMs = Number(process.env.CDE_TEST_PATIENCE_MS ?? 150_000);
const folder = join(import.meta.dirname, '../testing');

let cluster: TestCluster;
let registry: Server;
let attempts = 0;
const clusterWide: KubeObject[] = [];

/** Rejects requests as registries do. */
function makeRegistry(): Server {
  return createServer((request, reply) => {
    const path = request.url ?? '';
    const say = (status: number, code: string, message: string) =>
      reply
        .writeHead(status, { 'content-type': 'application/json' })
        .end(JSON.stringify({ errors: [{ code, message }] }));
    if (path.includes('/secret/')) say(403, 'DENIED', 'requested access to the resource is denied');
    else if (path === '/v2/') reply.writeHead(200).end('{}');
    else say(404, 'MANIFEST_UNKNOWN', 'manifest unknown');
  }).listen(0, '127.0.0.1');
}
/** Names what one attempt makes. A retry must not find what the first attempt has left. */
const nextAttempt = () => `${unique}-${++attempts}`;

const names = failureScenarios(unique, 'REGISTRY').map(({ name }) => name);
function scenarioOf(name: string, attempt: string): FailureScenario {
  const { port } = registry.address() as AddressInfo;
  return failureScenarios(attempt, `127.0.0.1:${port}`).find((one) => one.name === name)!;
}

beforeAll(async () => {
  cluster = await openTestCluster();
  registry = makeRegistry();
  await once(registry, 'listening');
});
afterAll(async () => {
  for (const object of clusterWide) await cluster.removeObject(object);
  for (const namespace of await cluster.list({
    apiVersion: 'v1',
    kind: 'Namespace',
    labels: `cde.dev/test=${unique}`,
  }))
    await cluster.removeObject(namespace);
  registry?.close();
});

async function inNamespace(namespace: string, object: KubeObject): Promise<void> {
  const { clusterWide: wide, ...metadata } = object.metadata as KubeObject['metadata'] & {
    clusterWide?: boolean;
  };
  const made = { ...object, metadata: { ...metadata, ...(!wide && { namespace }) } };
  if (wide) clusterWide.push(made);
  await cluster.create(made);
}

interface Seen {
  input: Pick<Start, 'pod' | 'events' | 'claims' | 'statefulSet'>;
  lastLines?: string;
}
async function look(namespace: string, log?: string): Promise<Seen> {
  const [pod, statefulSet, claims, events] = await Promise.all([
    cluster.getPod(namespace, 'agent-0'),
    cluster.get({ apiVersion: 'apps/v1', kind: 'StatefulSet', namespace, name: 'agent' }),
    cluster.list({ apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace }),
    cluster.list({ apiVersion: 'v1', kind: 'Event', namespace }),
  ]);
  const input = { pod, events, claims, statefulSet };
  if (!log || !pod) return { input };
  const read = (previous: boolean) =>
    cluster.logs(namespace, 'agent-0', { container: log, tailLines: 20, previous }).catch(() => '');
  const lines = (await read(false)) || (await read(true));
  return { input, ...(lines && { lastLines: lines }) };
}

/** The part of an object that reasons read, without traces of the machine. */
function trimmed<Object extends object>(object: Object, nodeName?: string): Object {
  const unwanted = new Set([
    ...['managedFields', 'resourceVersion', 'selfLink', 'generateName', 'labels', 'ownerReferences'],
    ...['hostIP', 'hostIPs', 'podIP', 'podIPs', 'containerID', 'imageID', 'allocatedResources', 'qosClass'],
    ...[
      'tolerations',
      'dnsPolicy',
      'schedulerName',
      'volumes',
      'volumeMounts',
      'securityContext',
      'readinessProbe',
    ],
    ...[
      'terminationMessagePath',
      'terminationMessagePolicy',
      'enableServiceLinks',
      'preemptionPolicy',
      'priority',
    ],
    ...[
      'imagePullPolicy',
      'command',
      'user',
      'hostname',
      'serviceAccount',
      'lastProbeTime',
      'action',
      'eventTime',
    ],
  ]);
  const text = JSON.stringify(object, (key, value) => (unwanted.has(key) ? undefined : value));
  return JSON.parse(
    [nodeName, 'cde-test']
      .filter((name) => name !== undefined)
      .reduce(
        (all, name) => all.replaceAll(`"${name}"`, '"n1"').replaceAll(` to ${name}"`, ' to n1"'),
        text.replace(/127\.0\.0\.1:\d{4,5}\//g, 'registry.example.com/'),
      )
      .replace(new RegExp(`${unique}-\\d+`, 'g'), 'cde')
      .replaceAll(machine(), 'n1'),
  );
}
function keep(name: string, seen: Seen, ended = false): void {
  if (!process.env.CDE_CAPTURE) return;
  const { pod, events, claims, statefulSet } = seen.input;
  const input = {
    pod: pod && trimmed(pod, pod.spec?.nodeName),
    events: events.map((event) => trimmed(event)),
    claims: claims.map((claim) => trimmed(claim)),
    statefulSet: statefulSet && trimmed({ ...statefulSet, spec: undefined }),
  };
  const lines = seen.lastLines !== undefined && { lastLines: seen.lastLines };
  const reason = explain({ ...input, ...lines });
  const expected = reason && { code: reason.code, message: reason.message, fatal: reason.fatal };
  const end = ended && { end: explainEnd(input.pod!, input.events) };
  writeFileSync(
    join(folder, `${name}.json`),
    `${JSON.stringify({ expected, ...end, ...lines, input }, null, 2)}\n`,
  );
}

/** `shown`: what is printed of a value that is not the expected one. */
const seenUntil = <T>(
  read: () => Promise<T>,
  check: (value: T) => boolean,
  shown: (value: T) => unknown,
): Promise<T> => until(read, check, { forMs, why: (value) => `still ${JSON.stringify(shown(value))}` });
/** Only warnings are watched, so they have to be enough. */
const explained = ({ input, lastLines }: Seen): Reason | null =>
  explain({
    ...input,
    events: input.events.filter(({ type }) => type === 'Warning'),
    ...(lastLines !== undefined && { lastLines }),
  });

async function provoke(one: FailureScenario, attempt: string): Promise<string> {
  const namespace = `${attempt}-${one.name}`;
  await cluster.create({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: namespace, labels: { 'cde.dev/test': unique, ...one.labels } },
  });
  for (const object of one.before ?? []) {
    await inNamespace(namespace, object);
    // A pod that is created before the quota's controller has run is counted minutes later.
    if (object.kind === 'ResourceQuota')
      await seenUntil(
        () => cluster.get({ apiVersion: 'v1', kind: 'ResourceQuota', namespace, name: 'cde' }),
        (quota) => quota?.status?.hard !== undefined,
        (quota) => quota?.status,
      );
  }
  if (one.claim)
    await inNamespace(namespace, {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'home' },
      spec: one.claim,
    });
  if (one.before?.some(({ kind }) => kind === 'ResourceQuota'))
    await seenUntil(
      () => cluster.get({ apiVersion: 'v1', kind: 'ResourceQuota', namespace, name: 'cde' }),
      (quota) => {
        const { hard, used } = quota?.status ?? {};
        const held = one.before?.some(({ kind }) => kind === 'Pod') ? used?.pods === '1' : true;
        return hard !== undefined && held;
      },
      (quota) => quota?.status,
    );
  // Labels take effect a moment later.
  if (one.labels)
    await seenUntil(
      () =>
        cluster
          .apply(
            {
              apiVersion: 'v1',
              kind: 'Pod',
              metadata: { name: 'probe', namespace },
              spec: { containers: [{ name: 'probe', image: 'x' }] },
            },
            { dryRun: true },
          )
          .then(
            () => false,
            () => true,
          ),
      (refused) => refused,
      () => 'not refused',
    );
  await inNamespace(namespace, statefulSetOf(one));
  return namespace;
}

describe('each failure is explained', { concurrent: true, timeout: 2 * forMs }, () => {
  test.each(names)('%s', async (name) => {
    const attempt = nextAttempt();
    const one = scenarioOf(name, attempt);
    const namespace = await provoke(one, attempt);
    const seen = await seenUntil(
      () => look(namespace, one.log),
      (value) => {
        const reason = explained(value);
        return (
          reason?.code === one.code &&
          one.message.test(reason.message) &&
          (!one.log || value.lastLines !== undefined)
        );
      },
      explained,
    );
    keep(name, seen, one.end !== undefined);
    const reason = explained(seen)!;
    expect(reason.fatal).toBe(one.fatal);
    if (one.end) expect(explainEnd(seen.input.pod!, seen.input.events).message).toMatch(one.end);
  });
});

/** A running StatefulSet of a workspace, whose pod then ends in some way. */
async function running(
  name: string,
  more: Partial<FailureScenario> = {},
  attempt = nextAttempt(),
): Promise<{ namespace: string; uid: string }> {
  const namespace = await provoke({ name, code: '', message: /./, fatal: false, ...more }, attempt);
  const pod = await seenUntil(
    () => cluster.getPod(namespace, 'agent-0'),
    (found) => found?.status?.phase === 'Running',
    (found) => found?.status,
  );
  return { namespace, uid: pod!.metadata.uid! };
}
// Its process ends only when it is killed, so that the end of the pod can be seen.
const stubborn = {
  pod: { terminationGracePeriodSeconds: 20 },
  container: { command: ['/bin/sh', '-c', 'trap "" TERM; while :; do sleep 1; done'] },
};

describe('the reason why a pod ended is reported', { concurrent: true, timeout: 2 * forMs }, () => {
  test('running: no reason', async () => {
    const { namespace } = await running('fine');
    const seen = await seenUntil(
      () => look(namespace),
      ({ input }) => explained({ input }) === null,
      explained,
    );
    keep('fine', seen);
  });

  test('drained', async () => {
    const { namespace } = await running('drained', stubborn);
    await cluster.evict(namespace, 'agent-0');
    const seen = await look(namespace);
    keep('drained', seen, true);
    expect(explainEnd(seen.input.pod!, seen.input.events).message).toMatch(/^The node \S+ was drained$/);
  });

  test('deleted outside of cde', async () => {
    const { namespace } = await running('deleted', stubborn);
    await cluster.remove({ apiVersion: 'v1', kind: 'Pod', name: 'agent-0', namespace });
    const seen = await look(namespace);
    keep('deleted', seen, true);
    expect(explained(seen)).toMatchObject({ code: 'pod-ending', fatal: false });
    expect(explainEnd(seen.input.pod!, seen.input.events).message).toBe('The pod was deleted, not by cde');
  });

  test('evicted for its disk: the pod is replaced at once, and an event gives the reason', async () => {
    const { namespace, uid } = await running('evicted', {
      pod: { volumes: [{ name: 'scratch', emptyDir: { sizeLimit: '1Mi' } }] },
      container: {
        command: ['/bin/sh', '-c', 'head -c 5000000 /dev/urandom > /scratch/file; exec sleep 1000'],
        volumeMounts: [{ name: 'scratch', mountPath: '/scratch' }],
      },
    });
    const seen = await seenUntil(
      () => look(namespace),
      ({ input }) => input.pod !== null && input.pod.metadata.uid !== uid,
      ({ input }) => input.events.map((event) => `${event.reason}: ${event.message}`),
    );
    keep('evicted', seen);
    expect(explainGone({ name: 'agent-0', uid }, seen.input.events)).toEqual({
      cause: 'evicted',
      message: 'Evicted: its scratch volume scratch grew beyond 1Mi',
    });
  });

  test('preempted', async () => {
    const attempt = nextAttempt();
    const resource = `cde.dev/${attempt}`;
    const [node] = await cluster.list({ apiVersion: 'v1', kind: 'Node' });
    const setCapacity = (value: string | null) =>
      cluster.patch(
        { apiVersion: 'v1', kind: 'Node', name: node!.metadata.name },
        { status: { capacity: { [resource]: value }, allocatable: { [resource]: value } } },
        'status',
      );
    await setCapacity('1');
    try {
      const priority: KubeObject = {
        apiVersion: 'scheduling.k8s.io/v1',
        kind: 'PriorityClass',
        metadata: { name: `${attempt}-high` },
        value: 1000,
      };
      clusterWide.push(priority);
      await cluster.create(priority);
      const taking = { resources: { limits: { [resource]: '1', memory: '32Mi' } } };
      const { namespace } = await running('preempted', {
        ...stubborn,
        container: { ...stubborn.container, ...taking },
      });
      await cluster.create({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'urgent', namespace },
        spec: {
          priorityClassName: `${attempt}-high`,
          containers: [
            { name: 'urgent', image: 'cde-test/debian:12', command: ['sleep', '1000'], ...taking },
          ],
        },
      });
      const seen = await seenUntil(
        () => look(namespace),
        ({ input }) => input.pod?.metadata.deletionTimestamp !== undefined,
        ({ input }) => input.pod?.status,
      );
      keep('preempted', seen, true);
      expect(explainEnd(seen.input.pod!, seen.input.events).message).toMatch(
        /^Preempted on the node \S+ by a pod of higher priority$/,
      );
    } finally {
      await setCapacity(null);
    }
  });

  test('the volume is gone', async () => {
    const attempt = nextAttempt();
    const volume: KubeObject = {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: `${attempt}-lost` },
      spec: {
        storageClassName: `${attempt}-lost`,
        capacity: { storage: '64Mi' },
        accessModes: ['ReadWriteOnce'],
        hostPath: { path: '/tmp' },
        claimRef: { namespace: `${attempt}-lost`, name: 'home' },
      },
    };
    clusterWide.push(volume);
    await cluster.create(volume);
    const { namespace } = await running(
      'lost',
      {
        claim: {
          storageClassName: `${attempt}-lost`,
          accessModes: ['ReadWriteOnce'],
          resources: { requests: { storage: '64Mi' } },
          volumeName: `${attempt}-lost`,
        },
      },
      attempt,
    );
    await cluster.removeObject(volume);
    await cluster.patch(
      { apiVersion: 'v1', kind: 'PersistentVolume', name: `${attempt}-lost` },
      { metadata: { finalizers: null } },
    );
    const seen = await seenUntil(
      () => look(namespace),
      (value) => explained(value)?.code === 'volume-lost',
      ({ input }) => input.claims.map(({ status }) => status),
    );
    keep('volume-lost', seen);
    expect(explained(seen)).toMatchObject({ fatal: true, message: 'The volume of the claim home is gone.' });
  });

  test('its node stops answering, then is removed', async () => {
    const attempt = nextAttempt();
    const node = `${attempt}-node`;
    const now = new Date().toISOString();
    const fake: KubeObject = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: node, labels: { 'cde.dev/test-node': unique } },
      // No other pod must be scheduled there.
      spec: { taints: [{ key: 'cde.dev/test', value: unique, effect: 'NoSchedule' }] },
      status: {
        capacity: { cpu: '4', memory: '8Gi', pods: '10' },
        allocatable: { cpu: '4', memory: '8Gi', pods: '10' },
        conditions: [
          {
            type: 'Ready',
            status: 'True',
            reason: 'KubeletReady',
            lastHeartbeatTime: now,
            lastTransitionTime: now,
          },
        ],
      },
    };
    clusterWide.push(fake);
    await cluster.create(fake);
    const namespace = await provoke(
      {
        name: 'node-lost',
        code: '',
        message: /./,
        fatal: false,
        pod: { nodeName: node, tolerations: [{ operator: 'Exists', effect: 'NoSchedule' }] },
      },
      attempt,
    );
    // As the kubelet would report it: it runs and is ready.
    await seenUntil(
      () => cluster.getPod(namespace, 'agent-0'),
      (pod) => pod !== null,
      () => 'no pod',
    );
    await cluster.patch(
      { apiVersion: 'v1', kind: 'Pod', namespace, name: 'agent-0' },
      {
        status: {
          phase: 'Running',
          conditions: ['PodScheduled', 'Initialized', 'ContainersReady', 'Ready'].map((type) => ({
            type,
            status: 'True',
            lastTransitionTime: now,
          })),
          containerStatuses: [
            {
              name: 'agent',
              ready: true,
              restartCount: 0,
              image: 'cde-test/debian:12',
              imageID: '',
              state: { running: { startedAt: now } },
            },
          ],
        },
      },
      'status',
    );
    const away = await seenUntil(
      () => look(namespace),
      (value) => explained(value)?.code === 'node-lost',
      explained,
    );
    keep('node-lost', away, true);
    expect(explained(away)!.message).toMatch(/^The node \S+-node was lost \(not ready\)\.$/);
    await cluster.removeObject(fake);
    const removed = await seenUntil(
      () => look(namespace),
      ({ input }) =>
        /was removed from the cluster/.test(input.pod ? explainEnd(input.pod, input.events).message : '') ||
        (input.pod?.metadata.uid !== away.input.pod?.metadata.uid &&
          explainGone({ name: 'agent-0' }, input.events) !== null),
      ({ input }) => [input.pod?.status, input.pod && explainEnd(input.pod, input.events)],
    );
    expect(removed.input.events.length).toBeGreaterThan(0);
  });
});
