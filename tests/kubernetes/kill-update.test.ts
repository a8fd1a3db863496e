import { expect, test } from 'vitest';
import { killTimeoutMs, setUpReplicaKill } from './replica-kill.ts';

const rig = setUpReplicaKill('update');

test(
  'an update is finished by another replica, and the home survives every kill',
  async () => {
    const { name, id } = await rig.create();
    const { namespace, volume } = await rig.expectRunning(name, 'start');
    await rig.writeHome(namespace);
    await rig.killAfterEachChange(6, async (kill) => {
      await kill(name, id);
      expect(await rig.expectRunning(name, 'update')).toEqual({ namespace, volume });
      await rig.expectHome(namespace);
    });
    await rig.discard(name);
  },
  killTimeoutMs,
);
