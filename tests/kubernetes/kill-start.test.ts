import { test } from 'vitest';
import { killTimeoutMs, setUpReplicaKill } from './replica-kill.ts';

const rig = setUpReplicaKill('start');

test(
  'a start is finished by another replica, whichever change the first was killed after',
  async () => {
    await rig.killAfterEachChange(6, async (kill) => {
      const { name, id } = await rig.create(false);
      await kill(name, id);
      await rig.expectRunning(name, 'start');
      await rig.discard(name);
    });
  },
  killTimeoutMs,
);
