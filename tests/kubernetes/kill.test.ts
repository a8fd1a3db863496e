import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { until } from '../kit/until.ts';
import { makeTestbed, type Replica, type Testbed } from './testbed.ts';

/**
 * Two real replicas, one database, a real cluster: for each transition, one replica is killed after each change
 * that it makes there, and the other brings it to its end.
 */
let testbed: Testbed;
let survivor: Replica;
beforeAll(async () => {
  testbed = await makeTestbed('kill');
  survivor = await testbed.start();
  expect((await testbed.publish(survivor, 'plain')).status).toBe(201);
});
afterEach(() => void survivor?.child.kill('SIGCONT'));
afterAll(() => testbed?.close());

/** More changes than any transition makes. */
const maxChanges = 40;

/** Lets a replica take the transition and kills it after `changes`; false: it came to its end before. */
async function killAfter(
  changes: number,
  transition: keyof Testbed['transitions'],
  name: string,
  id: string,
) {
  const victim = await testbed.start({ HANG_FOR: id, HANG_AT: String(changes) });
  await testbed.waitForIdleQueue();
  // The heir stands still until the victim has the step.
  survivor.child.kill('SIGSTOP');
  expect((await testbed.transitions[transition](victim, name)).status).toBe(202);
  const over = until(
    () => testbed.getWorkspace(victim, name),
    (workspace) => workspace.code !== undefined || testbed.hasEnded(workspace.latestBuild),
    90_000,
  ).catch(() => null);
  const hung = await Promise.race([victim.hung.then(() => true), over.then(() => false)]);
  survivor.child.kill('SIGCONT');
  await testbed.kill(victim);
  await over;
  return hung;
}
async function create(start = true): Promise<{ name: string; id: string }> {
  const name = testbed.nextName();
  const created = await testbed.request(survivor, 'POST', '/api/v1/workspaces', {
    name,
    template: 'plain',
    start,
  });
  expect(created.status).toBe(201);
  if (start) expect(await testbed.waitForBuild(survivor, name)).toMatchObject({ status: 'running' });
  return { name, id: created.body.id };
}
async function expectRuns(name: string, transition: string): Promise<{ namespace: string; volume: unknown }> {
  const workspace = await testbed.waitForBuild(survivor, name);
  expect(workspace).toMatchObject({
    status: 'running',
    reason: null,
    latestBuild: { status: 'succeeded', transition },
    agent: { connected: true },
  });
  const { namespace } = workspace;
  const pods = await testbed.cluster.list({ apiVersion: 'v1', kind: 'Pod', namespace });
  expect(pods).toHaveLength(1);
  expect(pods[0]!.metadata.annotations?.['cde.dev/build-id']).toBe(workspace.latestBuild.id);
  const claim = await testbed.cluster.get({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    namespace,
    name: 'home',
  });
  return { namespace, volume: (claim!.spec as { volumeName: string }).volumeName };
}
const discard = (name: string) =>
  testbed.request(survivor, 'DELETE', `/api/v1/workspaces/${name}?home=discard`);
const goneFrom = (name: string) =>
  until(
    () => testbed.request(survivor, 'GET', `/api/v1/workspaces/${name}`),
    (reply) => reply.status === 404,
    90_000,
  );

test('start', { timeout: 900_000 }, async () => {
  let changes = 0;
  for (; changes < maxChanges; changes++) {
    const { name, id } = await create(false);
    const hung = await killAfter(changes, 'start', name, id);
    await expectRuns(name, 'start');
    await discard(name);
    if (!hung) break;
  }
  expect(changes).toBeGreaterThan(5);
  expect(changes).toBeLessThan(maxChanges);
});

test('update: the home goes through all of them', { timeout: 900_000 }, async () => {
  const { name, id } = await create();
  const { namespace, volume } = await expectRuns(name, 'start');
  await testbed.exec(namespace, 'sh', '-c', 'echo mine > ~/work');
  let changes = 0;
  for (; changes < maxChanges; changes++) {
    const hung = await killAfter(changes, 'update', name, id);
    expect(await expectRuns(name, 'update')).toEqual({ namespace, volume });
    expect(await testbed.exec(namespace, 'sh', '-c', 'cat ~/work')).toBe('mine\n');
    if (!hung) break;
  }
  expect(changes).toBeGreaterThan(5);
  expect(changes).toBeLessThan(maxChanges);
  await discard(name);
});

test('stop', { timeout: 600_000 }, async () => {
  const { name, id } = await create();
  const { namespace, volume } = await expectRuns(name, 'start');
  await testbed.exec(namespace, 'sh', '-c', 'echo mine > ~/work');
  let changes = 0;
  for (; changes < maxChanges; changes++) {
    const hung = await killAfter(changes, 'stop', name, id);
    expect(await testbed.waitForBuild(survivor, name)).toMatchObject({
      status: 'stopped',
      latestBuild: { status: 'succeeded', transition: 'stop' },
    });
    expect(await testbed.cluster.list({ apiVersion: 'v1', kind: 'Pod', namespace })).toEqual([]);
    expect((await testbed.transitions.start(survivor, name)).status).toBe(202);
    expect(await expectRuns(name, 'start')).toEqual({ namespace, volume });
    expect(await testbed.exec(namespace, 'sh', '-c', 'cat ~/work')).toBe('mine\n');
    if (!hung) break;
  }
  expect(changes).toBeGreaterThan(0);
  expect(changes).toBeLessThan(maxChanges);
  await discard(name);
});

test('delete: the home is kept, once', { timeout: 600_000 }, async () => {
  let changes = 0;
  for (; changes < maxChanges; changes++) {
    const { name, id } = await create();
    const { namespace, volume } = await expectRuns(name, 'start');
    const hung = await killAfter(changes, 'delete', name, id);
    await goneFrom(name);
    expect(await testbed.cluster.get({ apiVersion: 'v1', kind: 'Namespace', name: namespace })).toBeNull();
    const kept = await testbed.cluster.list({
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      labels: `cde.dev/workspace=${id},cde.dev/home=kept`,
    });
    expect(kept.map(({ metadata }) => metadata.name)).toEqual([volume]);
    if (!hung) break;
  }
  expect(changes).toBeGreaterThan(0);
  expect(changes).toBeLessThan(maxChanges);
});
