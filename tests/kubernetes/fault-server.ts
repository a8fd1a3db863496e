import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { patienceMs, until } from '../kit/until.ts';
import { makeTestbed, type Replica, type Testbed } from './testbed.ts';

/** A real server on a real cluster, for tests that make the cluster fail: nothing is lost, nothing hangs, all is reported. */
export function setUpFaultServer(prefix: string) {
  let testbed: Testbed;
  let server: Replica;
  beforeAll(async () => {
    testbed = await makeTestbed(prefix);
    server = await testbed.start();
    expect((await testbed.publish(server, 'plain')).status).toBe(201);
  });
  afterEach(() => testbed?.apiProxy.restore());
  afterAll(() => testbed?.close());

  async function create(template = 'plain'): Promise<{ name: string; id: string }> {
    const name = testbed.nextName();
    const created = await testbed.request(server, 'POST', '/api/v1/workspaces', { name, template });
    expect(created.status).toBe(201);
    return { name, id: created.body.id };
  }
  const waitForWorkspace = (name: string, matches: (workspace: any) => boolean, forMs?: number) =>
    until(() => testbed.getWorkspace(server, name), matches, forMs);

  return {
    get testbed() {
      return testbed;
    },
    get server() {
      return server;
    },
    /** Kills the server and starts another. */
    async restartServer(env: Record<string, string> = {}): Promise<void> {
      await testbed.kill(server);
      server = await testbed.start(env);
    },
    async publish(name: string, section: Record<string, unknown>, startup?: string): Promise<void> {
      const reply = await testbed.publish(server, name, section, undefined, startup);
      expect(reply, JSON.stringify(reply.body)).toMatchObject({ status: 201 });
    },
    create,
    async createRunning(template = 'plain') {
      const created = await create(template);
      const workspace = await testbed.waitForBuild(server, created.name);
      expect(workspace).toMatchObject({ status: 'running' });
      const namespace: string = workspace.namespace;
      await testbed.exec(namespace, 'sh', '-c', 'echo mine > ~/work');
      const pod = await testbed.cluster.getPod(namespace, 'workspace-0');
      return { ...created, namespace, uid: pod!.metadata.uid };
    },
    async expectHome(namespace: string): Promise<void> {
      expect(await testbed.exec(namespace, 'sh', '-c', 'cat ~/work')).toBe('mine\n');
    },
    discard: (name: string) => testbed.request(server, 'DELETE', `/api/v1/workspaces/${name}?home=discard`),
    waitForWorkspace,
    waitForBuild: (name: string) => testbed.waitForBuild(server, name),
    /** Waits until the log of the newest build matches. */
    async waitForLog(name: string, text: RegExp, forMs?: number): Promise<string> {
      const { latestBuild } = await testbed.getWorkspace(server, name);
      return until(
        () => testbed.buildLog(server, latestBuild.id),
        (log) => text.test(log),
        forMs,
      );
    },
    getCluster: async () => (await testbed.request(server, 'GET', '/api/v1/clusters')).body.items[0],
    /** Waits for a later build than `number`, which the server started by itself, to succeed. */
    waitForRecovery: (name: string, number: number, forMs = patienceMs) =>
      waitForWorkspace(
        name,
        ({ latestBuild, status }) =>
          latestBuild.number > number && testbed.hasEnded(latestBuild) && status === 'running',
        forMs,
      ),
  };
}
