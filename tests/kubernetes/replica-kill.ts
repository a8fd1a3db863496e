import { afterAll, beforeAll, expect } from 'vitest';
import { until } from '../kit/until.ts';
import { makeTestbed, type Replica, type Testbed } from './testbed.ts';

/** Much longer than two rounds take, each with a server and pods to start. */
export const killTimeoutMs = 1_800_000;

/** How many workspaces a killed replica works on. */
const maxAtOnce = 12;
/** More changes than any transition makes. */
const maxChanges = 40;

interface Subject {
  name: string;
  id: string;
}
interface Home {
  namespace: string;
  volume: unknown;
}

/**
 * Two real replicas, one database and a real cluster: one replica is killed in transitions of several workspaces, in each
 * after another change that it makes on the cluster, and the other has to finish them. Each transition has a file of its
 * own, so that they run side by side.
 */
export function setUpReplicaKill(transition: keyof Testbed['transitions']) {
  let testbed: Testbed;
  let survivor: Replica;
  beforeAll(async () => {
    testbed = await makeTestbed(`kill-${transition}`);
    survivor = await testbed.start();
    expect((await testbed.publish(survivor, 'plain')).status).toBe(201);
  });
  afterAll(() => testbed?.close());

  const discard = (name: string) =>
    testbed.request(survivor, 'DELETE', `/api/v1/workspaces/${name}?home=discard`);

  /**
   * Has a replica run the transition of all `subjects` and kills it when it hangs in each, after `first` changes of the first
   * one, one more of the next, and so on, or has finished it before. Returns in how many it was killed.
   */
  async function killAfter(first: number, subjects: readonly Subject[]): Promise<number> {
    const hangAt = Object.fromEntries(subjects.map(({ id }, index) => [id, first + index]));
    const victim = await testbed.start({
      HANG_AT: JSON.stringify(hangAt),
      // A step that hangs occupies a worker.
      CDE_CONCURRENCY: String(2 * maxAtOnce),
    });
    await testbed.waitForIdleQueue();
    // The survivor is frozen, so that the victim takes the jobs.
    survivor.child.kill('SIGSTOP');
    try {
      for (const { name } of subjects)
        expect((await testbed.transitions[transition](victim, name)).status).toBe(202);
      await Promise.all(
        subjects.map(({ name, id }) =>
          until(async () => {
            if (victim.hung.has(id)) return true;
            const workspace = await testbed.getWorkspace(victim, name);
            return workspace.code !== undefined || testbed.hasEnded(workspace.latestBuild);
          }, `the ${transition} of ${name} to hang or end`),
        ),
      );
    } finally {
      survivor.child.kill('SIGCONT');
      await testbed.kill(victim);
    }
    return victim.hung.size;
  }

  async function create(start = true): Promise<Subject> {
    const name = testbed.nextName();
    const body = { name, template: 'plain', start };
    const created = await testbed.request(survivor, 'POST', '/api/v1/workspaces', body);
    expect(created.status).toBe(201);
    return { name, id: created.body.id };
  }
  /** The workspace runs in exactly one pod, of its newest build. */
  async function expectRunning(name: string, build: string): Promise<Home> {
    const workspace = await testbed.waitForBuild(survivor, name);
    expect(workspace, JSON.stringify(workspace.latestBuild?.error ?? workspace)).toMatchObject({
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
  }

  return {
    /**
     * Kills a replica in the transition of a workspace for each number of changes: 0, 1, 2… until it ends before that. At
     * least `minKills` have to happen. With `usualKills`, as many as the transition has today, one replica is enough.
     */
    async killAfterEachChange<S extends Subject>({
      minKills,
      usualKills,
      prepare,
      check,
    }: {
      minKills: number;
      usualKills: number;
      prepare: () => Promise<S>;
      check: (subject: S) => Promise<unknown>;
    }): Promise<void> {
      const atOnce = Math.min(usualKills + 1, maxAtOnce);
      let kills = 0;
      for (let ended = false; !ended && kills < maxChanges; ) {
        const subjects = await Promise.all(Array.from({ length: atOnce }, prepare));
        const killed = await killAfter(kills, subjects);
        await Promise.all(subjects.map(check));
        await Promise.all(subjects.map(({ name }) => discard(name)));
        kills += killed;
        ended = killed < atOnce;
      }
      expect(kills).toBeGreaterThanOrEqual(minKills);
      expect(kills).toBeLessThan(maxChanges);
    },
    create,
    /** A running workspace, with a file in its home. */
    async createWithHome(): Promise<Subject & { home: Home }> {
      const created = await create();
      const home = await expectRunning(created.name, 'start');
      await testbed.exec(home.namespace, 'sh', '-c', 'echo mine > ~/work');
      return { ...created, home };
    },
    expectRunning,
    async expectHome(namespace: string): Promise<void> {
      expect(await testbed.exec(namespace, 'sh', '-c', 'cat ~/work')).toBe('mine\n');
    },
    waitForBuild: (name: string) => testbed.waitForBuild(survivor, name),
    start: (name: string) => testbed.transitions.start(survivor, name),
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
