import { randomUUID } from 'node:crypto';
import type { KubeObject } from '@cde/server/providers/kubernetes/api/client.ts';
import { addUser } from '@cde/server/testing.ts';
import { describe, expect, test } from 'vitest';
import { until } from '../kit/until.ts';
import { setUpFaultServer } from './fault-server.ts';

const rig = setUpFaultServer('faults-namespaces');

describe('what a namespace does not allow', () => {
  test('a quota used up by other pods is reported with its numbers; the start continues when there is room', async () => {
    const { name, namespace } = await rig.createRunning();
    await rig.testbed.transitions.stop(rig.server, name);
    expect(await rig.waitForBuild(name)).toMatchObject({ status: 'stopped' });
    const quota = { apiVersion: 'v1', kind: 'ResourceQuota', namespace, name: 'company' };
    const limit = (memory: string) => ({ spec: { hard: { 'limits.memory': memory } } });
    const counts = (memory: string) =>
      until(
        () => rig.testbed.cluster.get(quota),
        (found) => (found!.status as { hard?: Record<string, string> })?.hard?.['limits.memory'] === memory,
      );
    await rig.testbed.cluster.create({
      apiVersion: 'v1',
      kind: 'ResourceQuota',
      metadata: { name: 'company', namespace },
      ...limit('300Mi'),
    });
    await counts('300Mi');
    const pod = (podName: string, memory: string): KubeObject => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: podName, namespace },
      spec: {
        nodeSelector: { 'cde.dev/nowhere': 'true' },
        containers: [{ name: podName, image: 'x', resources: { limits: { memory, cpu: '10m' } } }],
      },
    });
    // The API server counts no pods before its own watch has brought the quota.
    await until(async () => {
      const tooLarge = pod(`too-large-${randomUUID().slice(0, 8)}`, '1Gi');
      const created = await rig.testbed.cluster.create(tooLarge).catch(() => null);
      if (created) await rig.testbed.cluster.removeObject(tooLarge);
      return !created;
    }, 'the API server applies the quota');
    const other = pod('other', '128Mi');
    await rig.testbed.cluster.create(other);
    await rig.testbed.transitions.start(rig.server, name);
    await rig.waitForLog(
      name,
      /The quota of the namespace does not leave room for the pod workspace-0: memory: 256Mi requested, 128Mi of 300Mi used\./,
    );
    await rig.testbed.cluster.removeObject(other);
    expect(await rig.waitForBuild(name)).toMatchObject({
      status: 'running',
      reason: null,
      latestBuild: { number: 3 },
    });
    // What can never fit fails at once.
    await rig.testbed.transitions.stop(rig.server, name);
    await rig.waitForBuild(name);
    await rig.testbed.cluster.patch(quota, limit('64Mi'));
    await counts('64Mi');
    await rig.testbed.transitions.start(rig.server, name);
    expect(await rig.waitForBuild(name)).toMatchObject({
      status: 'failed',
      reason: expect.stringContaining('256Mi requested, 0 of 64Mi used'),
      latestBuild: { error: { code: 'quota-exceeded', fault: 'user' } },
    });
    expect(await rig.testbed.cluster.remove(quota)).toBe(true);
    await rig.testbed.transitions.start(rig.server, name);
    expect(await rig.waitForBuild(name)).toMatchObject({ status: 'running', reason: null });
    await rig.expectHome(namespace);
    await rig.discard(name);
  });

  test('a home claim that cannot be bound is reported; a fixed template starts', async () => {
    await rig.publish('unbound', { storageClass: 'cde-nowhere' });
    const { name } = await rig.create('unbound');
    const failed = await rig.waitForBuild(name);
    expect(failed, JSON.stringify(failed.latestBuild)).toMatchObject({
      status: 'failed',
      reason: 'The cluster has no storage class cde-nowhere, which the claim home asks for.',
      latestBuild: { error: { code: 'storage-class-missing' } },
    });
    await rig.publish('unbound', {});
    await rig.testbed.transitions.update(rig.server, name);
    const fixed = await rig.waitForBuild(name);
    expect(fixed, JSON.stringify(fixed.latestBuild)).toMatchObject({ status: 'running', reason: null });
    await rig.discard(name);
  });

  test('a namespace held by a finalizer is reported; the deletion continues when the finalizer is gone', async () => {
    const { name, id, namespace } = await rig.createRunning();
    await rig.testbed.cluster.create({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'held', namespace, finalizers: ['cde.dev/test-hold'] },
    });
    expect((await rig.testbed.transitions.delete(rig.server, name)).status).toBe(202);
    await rig.waitForLog(name, /cde\.dev\/test-hold in 1 resource instances/);
    await rig.restartServer();
    expect(await rig.testbed.getWorkspace(rig.server, name)).toMatchObject({ status: 'deleting' });
    await rig.testbed.cluster.patch(
      { apiVersion: 'v1', kind: 'ConfigMap', namespace, name: 'held' },
      { metadata: { finalizers: null } },
    );
    await until(
      () => rig.testbed.request(rig.server, 'GET', `/api/v1/workspaces/${name}`),
      ({ status }) => status === 404,
    );
    const kept = await rig.testbed.cluster.list({
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      labels: `cde.dev/workspace=${id},cde.dev/home=kept`,
    });
    expect(kept).toHaveLength(1);
  });
});

let attempts = 0;
test('two admins publish at once while a workspace is updated: no version mixes both', async () => {
  // The number of its versions counts, so a retry needs another template.
  const template = `shared-${++attempts}`;
  const bob = await addUser(rig.testbed.database, `bob-${attempts}-${rig.testbed.unique}`, 'template-admin');
  const second = await rig.testbed.start();
  await rig.publish(template, {});
  const { name } = await rig.createRunning(template);
  const rounds = 6;
  for (let round = 0; round < rounds; round++) {
    const both = await Promise.all([
      rig.testbed.publish(rig.server, template, { env: { BY: 'ada', ROUND: String(round) } }),
      rig.testbed.publish(second, template, { env: { BY: 'bob', ROUND: String(round) } }, bob.token),
      ...(round % 3 === 1 ? [rig.testbed.transitions.update(rig.server, name)] : []),
    ]);
    expect(both.slice(0, 2).map(({ status }) => status)).toEqual([201, 201]);
  }
  const { items } = (
    await rig.testbed.request(rig.server, 'GET', `/api/v1/templates/${template}/versions?limit=100`)
  ).body;
  const numbers = items.map(({ number }: { number: number }) => number);
  expect(numbers).toEqual(Array.from({ length: 1 + 2 * rounds }, (_, index) => 1 + 2 * rounds - index));
  expect(items.filter(({ active }: { active: boolean }) => active)).toHaveLength(1);
  await rig.waitForBuild(name);
  await rig.testbed.transitions.update(rig.server, name);
  const updated = await rig.waitForBuild(name);
  expect(updated).toMatchObject({ status: 'running', outdated: false });
  const active = items.find(({ active: is }: { active: boolean }) => is).number;
  expect(updated.templateVersion).toBe(active);
  const files = (
    await rig.testbed.request(rig.server, 'GET', `/api/v1/templates/${template}/versions/${active}/files`)
  ).body.files;
  const by = /"BY":"(\w+)"/.exec(files['template.yaml'])![1];
  const pod = await rig.testbed.cluster.getPod(updated.namespace, 'workspace-0');
  // The agent's own environment comes from the server; the namespace is of one version and no other.
  expect(pod!.metadata.annotations?.['cde.dev/build-id']).toBe(updated.latestBuild.id);
  expect(['ada', 'bob']).toContain(by);
  await rig.expectHome(updated.namespace);
  await rig.testbed.kill(second);
  await rig.discard(name);
});
