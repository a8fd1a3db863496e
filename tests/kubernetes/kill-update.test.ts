import { expect, test } from 'vitest';
import { killTimeoutMs, setUpReplicaKill } from './replica-kill.ts';

const rig = setUpReplicaKill('update');

test(
  'an update is finished by another replica, and the home survives every kill',
  () =>
    rig.killAfterEachChange({
      minKills: 6,
      usualKills: 11,
      prepare: () => rig.createWithHome(),
      async check({ name, home }) {
        expect(await rig.expectRunning(name, 'update')).toEqual(home);
        await rig.expectHome(home.namespace);
      },
    }),
  killTimeoutMs,
);
