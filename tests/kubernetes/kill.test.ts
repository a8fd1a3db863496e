import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { until } from '../harness/server.ts';
import { makeStage, type Replica, type Stage } from './stage.ts';

/**
 * Two real replicas, one database, a real cluster: for each transition, one replica is killed after each change
 * that it makes there, and the other brings it to its end.
 */
let stage: Stage;
let heir: Replica;
beforeAll(async () => {
  stage = await makeStage('kill');
  heir = await stage.start();
  expect((await stage.publish(heir, 'plain')).status).toBe(201);
});
afterEach(() => void heir?.child.kill('SIGCONT'));
afterAll(() => stage?.close());

/** More changes than any transition makes. */
const mostChanges = 40;

/** Lets a replica take the transition and kills it after `changes`; false: it came to its end before. */
async function killedAfter(changes: number, transition: keyof Stage['requests'], name: string, id: string) {
  const victim = await stage.start({ HANG_FOR: id, HANG_AT: String(changes) });
  await stage.idle();
  // The heir stands still until the victim has the step.
  heir.child.kill('SIGSTOP');
  expect((await stage.requests[transition](victim, name)).status).toBe(202);
  const over = until(
    () => stage.show(victim, name),
    (workspace) => workspace.code !== undefined || stage.ended(workspace.latestBuild),
    90_000,
  ).catch(() => null);
  const hung = await Promise.race([victim.hung.then(() => true), over.then(() => false)]);
  heir.child.kill('SIGCONT');
  await stage.kill(victim);
  await over;
  return hung;
}
async function create(start = true): Promise<{ name: string; id: string }> {
  const name = stage.nextName();
  const created = await stage.call(heir, 'POST', '/api/v1/workspaces', { name, template: 'plain', start });
  expect(created.status).toBe(201);
  if (start) expect(await stage.settled(heir, name)).toMatchObject({ status: 'running' });
  return { name, id: created.body.id };
}
async function expectRuns(name: string, transition: string): Promise<{ namespace: string; volume: unknown }> {
  const workspace = await stage.settled(heir, name);
  expect(workspace).toMatchObject({
    status: 'running',
    reason: null,
    latestBuild: { status: 'succeeded', transition },
    agent: { connected: true },
  });
  const { namespace } = workspace;
  const pods = await stage.cluster.list({ apiVersion: 'v1', kind: 'Pod', namespace });
  expect(pods).toHaveLength(1);
  expect(pods[0]!.metadata.annotations?.['cde.dev/build-id']).toBe(workspace.latestBuild.id);
  const claim = await stage.cluster.get({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    namespace,
    name: 'home',
  });
  return { namespace, volume: (claim!.spec as { volumeName: string }).volumeName };
}
const discard = (name: string) => stage.call(heir, 'DELETE', `/api/v1/workspaces/${name}?home=discard`);
const goneFrom = (name: string) =>
  until(
    () => stage.call(heir, 'GET', `/api/v1/workspaces/${name}`),
    (reply) => reply.status === 404,
    90_000,
  );

test('start', { timeout: 900_000 }, async () => {
  let changes = 0;
  for (; changes < mostChanges; changes++) {
    const { name, id } = await create(false);
    const hung = await killedAfter(changes, 'start', name, id);
    await expectRuns(name, 'start');
    await discard(name);
    if (!hung) break;
  }
  expect(changes).toBeGreaterThan(5);
  expect(changes).toBeLessThan(mostChanges);
});

test('update: the home goes through all of them', { timeout: 900_000 }, async () => {
  const { name, id } = await create();
  const { namespace, volume } = await expectRuns(name, 'start');
  await stage.exec(namespace, 'sh', '-c', 'echo mine > ~/work');
  let changes = 0;
  for (; changes < mostChanges; changes++) {
    const hung = await killedAfter(changes, 'update', name, id);
    expect(await expectRuns(name, 'update')).toEqual({ namespace, volume });
    expect(await stage.exec(namespace, 'sh', '-c', 'cat ~/work')).toBe('mine\n');
    if (!hung) break;
  }
  expect(changes).toBeGreaterThan(5);
  expect(changes).toBeLessThan(mostChanges);
  await discard(name);
});

test('stop', { timeout: 600_000 }, async () => {
  const { name, id } = await create();
  const { namespace, volume } = await expectRuns(name, 'start');
  await stage.exec(namespace, 'sh', '-c', 'echo mine > ~/work');
  let changes = 0;
  for (; changes < mostChanges; changes++) {
    const hung = await killedAfter(changes, 'stop', name, id);
    expect(await stage.settled(heir, name)).toMatchObject({
      status: 'stopped',
      latestBuild: { status: 'succeeded', transition: 'stop' },
    });
    expect(await stage.cluster.list({ apiVersion: 'v1', kind: 'Pod', namespace })).toEqual([]);
    expect((await stage.requests.start(heir, name)).status).toBe(202);
    expect(await expectRuns(name, 'start')).toEqual({ namespace, volume });
    expect(await stage.exec(namespace, 'sh', '-c', 'cat ~/work')).toBe('mine\n');
    if (!hung) break;
  }
  expect(changes).toBeGreaterThan(0);
  expect(changes).toBeLessThan(mostChanges);
  await discard(name);
});

test('delete: the home is kept, once', { timeout: 600_000 }, async () => {
  let changes = 0;
  for (; changes < mostChanges; changes++) {
    const { name, id } = await create();
    const { namespace, volume } = await expectRuns(name, 'start');
    const hung = await killedAfter(changes, 'delete', name, id);
    await goneFrom(name);
    expect(await stage.cluster.get({ apiVersion: 'v1', kind: 'Namespace', name: namespace })).toBeNull();
    const kept = await stage.cluster.list({
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      labels: `cde.dev/workspace=${id},cde.dev/home=kept`,
    });
    expect(kept.map(({ metadata }) => metadata.name)).toEqual([volume]);
    if (!hung) break;
  }
  expect(changes).toBeGreaterThan(0);
  expect(changes).toBeLessThan(mostChanges);
});
