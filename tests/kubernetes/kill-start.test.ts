import { test } from 'vitest';
import { killTimeoutMs, setUpReplicaKill } from './replica-kill.ts';

const rig = setUpReplicaKill('start');

test(
  'a start is finished by another replica, whichever change the first was killed after',
  () =>
    rig.killAfterEachChange({
      minKills: 6,
      usualKills: 11,
      prepare: () => rig.create(false),
      check: ({ name }) => rig.expectRunning(name, 'start'),
    }),
  killTimeoutMs,
);
