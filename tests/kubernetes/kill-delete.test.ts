import { expect, test } from 'vitest';
import { killTimeoutMs, setUpReplicaKill } from './replica-kill.ts';

const rig = setUpReplicaKill('delete');

test(
  'a deletion is finished by another replica, and exactly one home is retained',
  () =>
    rig.killAfterEachChange({
      minKills: 1,
      usualKills: 5,
      prepare: () => rig.createWithHome(),
      async check({ name, id, home: { namespace, volume } }) {
        await rig.waitUntilDeleted(name);
        expect(await rig.cluster.get({ apiVersion: 'v1', kind: 'Namespace', name: namespace })).toBeNull();
        const retained = await rig.cluster.list({
          apiVersion: 'v1',
          kind: 'PersistentVolume',
          labels: `cde.dev/workspace=${id},cde.dev/home=kept`,
        });
        expect(retained.map(({ metadata }) => metadata.name)).toEqual([volume]);
      },
    }),
  killTimeoutMs,
);
