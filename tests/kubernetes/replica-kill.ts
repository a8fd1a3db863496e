import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { until } from '../kit/until.ts';
import { makeTestbed, type Replica, type Testbed } from './testbed.ts';

/** A dozen rounds, each with a server and a pod to start. */
export const killTimeoutMs = 1_800_000;

/** More changes than any transition makes. */
const maxChanges = 40;

/**
 * Two real replicas, one database and a real cluster: one replica is killed after each change that it makes on the cluster
 * in a transition, and the other has to finish the transition. Each transition has a file of its own, so that they run
 * side by side.
 */
export function setUpReplicaKill(transition: keyof Testbed['transitions']) {
  let testbed: Testbed;
  let survivor: Replica;
  beforeAll(async () => {
    testbed = await makeTestbed(`kill-${transition}`);
    survivor = await testbed.start();
    expect((await testbed.publish(survivor, 'plain')).status).toBe(201);
  });
  afterEach(() => void survivor?.child.kill('SIGCONT'));
  afterAll(() => testbed?.close());

  /** Kills the replica that runs the transition after `changes`; false if the transition ended before. */
  async function killAfter(changes: number, name: string, id: string): Promise<boolean> {
    const victim = await testbed.start({ HANG_FOR: id, HANG_AT: String(changes) });
    await testbed.waitForIdleQueue();
    // The survivor is frozen until the victim has taken the job.
    survivor.child.kill('SIGSTOP');
    expect((await testbed.transitions[transition](victim, name)).status).toBe(202);
    const ended = until(
      () => testbed.getWorkspace(victim, name),
      (workspace) => workspace.code !== undefined || testbed.hasEnded(workspace.latestBuild),
    ).catch(() => null);
    const hung = await Promise.race([victim.hung.then(() => true), ended.then(() => false)]);
    survivor.child.kill('SIGCONT');
    await testbed.kill(victim);
    await ended;
    return hung;
  }

  return {
    /** Runs `round` for 0, 1, 2… changes, until one ends without a kill. At least `minKills` have to happen. */
    async killAfterEachChange(
      minKills: number,
      round: (kill: (name: string, id: string) => Promise<boolean>) => Promise<void>,
    ): Promise<void> {
      let changes = 0;
      for (; changes < maxChanges; changes++) {
        let killed = false;
        await round(async (name, id) => {
          killed = await killAfter(changes, name, id);
          return killed;
        });
        if (!killed) break;
      }
      expect(changes).toBeGreaterThanOrEqual(minKills);
      expect(changes).toBeLessThan(maxChanges);
    },
    async create(start = true): Promise<{ name: string; id: string }> {
      const name = testbed.nextName();
      const body = { name, template: 'plain', start };
      const created = await testbed.request(survivor, 'POST', '/api/v1/workspaces', body);
      expect(created.status).toBe(201);
      if (start) expect(await testbed.waitForBuild(survivor, name)).toMatchObject({ status: 'running' });
      return { name, id: created.body.id };
    },
    /** The workspace runs in exactly one pod, of its newest build. */
    async expectRunning(name: string, build: string): Promise<{ namespace: string; volume: unknown }> {
      const workspace = await testbed.waitForBuild(survivor, name);
      expect(workspace).toMatchObject({
        status: 'running',
        reason: null,
        latestBuild: { status: 'succeeded', transition: build },
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
    },
    writeHome: (namespace: string) => testbed.exec(namespace, 'sh', '-c', 'echo mine > ~/work'),
    async expectHome(namespace: string): Promise<void> {
      expect(await testbed.exec(namespace, 'sh', '-c', 'cat ~/work')).toBe('mine\n');
    },
    waitForBuild: (name: string) => testbed.waitForBuild(survivor, name),
    start: (name: string) => testbed.transitions.start(survivor, name),
    discard: (name: string) => testbed.request(survivor, 'DELETE', `/api/v1/workspaces/${name}?home=discard`),
    waitUntilDeleted: (name: string) =>
      until(
        () => testbed.request(survivor, 'GET', `/api/v1/workspaces/${name}`),
        (reply) => reply.status === 404,
      ),
    get cluster() {
      return testbed.cluster;
    },
  };
}
