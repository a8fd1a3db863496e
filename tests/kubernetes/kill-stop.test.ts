import { expect, test } from 'vitest';
import { killTimeoutMs, setUpReplicaKill } from './replica-kill.ts';

const rig = setUpReplicaKill('stop');

test(
  'a stop is finished by another replica, and the next start has the same home',
  async () => {
    const { name, id } = await rig.create();
    const { namespace, volume } = await rig.expectRunning(name, 'start');
    await rig.writeHome(namespace);
    await rig.killAfterEachChange(1, async (kill) => {
      await kill(name, id);
      expect(await rig.waitForBuild(name)).toMatchObject({
        status: 'stopped',
        latestBuild: { status: 'succeeded', transition: 'stop' },
      });
      expect(await rig.cluster.list({ apiVersion: 'v1', kind: 'Pod', namespace })).toEqual([]);
      expect((await rig.start(name)).status).toBe(202);
      expect(await rig.expectRunning(name, 'start')).toEqual({ namespace, volume });
      await rig.expectHome(namespace);
    });
    await rig.discard(name);
  },
  killTimeoutMs,
);
