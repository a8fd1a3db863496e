import { expect, test } from 'vitest';
import { killTimeoutMs, setUpReplicaKill } from './replica-kill.ts';

const rig = setUpReplicaKill('stop');

test(
  'a stop is finished by another replica, and the next start has the same home',
  () =>
    rig.killAfterEachChange({
      minKills: 1,
      usualKills: 2,
      prepare: () => rig.createWithHome(),
      async check({ name, home }) {
        expect(await rig.waitForBuild(name)).toMatchObject({
          status: 'stopped',
          latestBuild: { status: 'succeeded', transition: 'stop' },
        });
        const { namespace } = home;
        expect(await rig.cluster.list({ apiVersion: 'v1', kind: 'Pod', namespace })).toEqual([]);
        expect((await rig.start(name)).status).toBe(202);
        expect(await rig.expectRunning(name, 'start')).toEqual(home);
        await rig.expectHome(namespace);
      },
    }),
  killTimeoutMs,
);
