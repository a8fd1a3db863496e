import { expect, test } from 'vitest';
import { until } from '../kit/until.ts';
import { setUpFaultServer } from './fault-server.ts';
import { scaleDownBlockers } from './scale-down.ts';

const rig = setUpFaultServer('idle');
const path = (name: string, rest: string) => `/api/v1/workspaces/${name}/${rest}`;

async function setBounds(change: object): Promise<void> {
  const { body } = await rig.testbed.request(rig.server, 'GET', '/api/v1/cleanup/policy');
  const { status } = await rig.testbed.request(rig.server, 'PUT', '/api/v1/cleanup/policy', {
    ...body,
    ...change,
  });
  expect(status).toBe(200);
}

test('an idle workspace is stopped, holds no node then, and has its home when it is started again', async () => {
  await setBounds({ minStopAfterSeconds: null });
  const { name, namespace } = await rig.createRunning();
  // The checker must be able to find something.
  expect(await scaleDownBlockers(rig.testbed.cluster, [namespace])).not.toEqual([]);
  await rig.testbed.request(rig.server, 'PUT', path(name, 'idle-policy'), { stopAfterSeconds: 20 });
  const stopped = await until(
    () => rig.testbed.getWorkspace(rig.server, name),
    ({ status }) => status === 'stopped',
  );
  expect(stopped.latestBuild).toMatchObject({
    initiator: 'system',
    reason: expect.stringMatching(/^stopped because it was idle/),
  });
  // The pod has its grace period.
  await until(
    () => scaleDownBlockers(rig.testbed.cluster, [namespace]),
    (blockers) => blockers.length === 0,
  );
  await rig.testbed.request(rig.server, 'PUT', path(name, 'idle-policy'), {});
  await rig.testbed.transitions.start(rig.server, name);
  expect(await rig.waitForBuild(name)).toMatchObject({ status: 'running' });
  await rig.expectHome(namespace);
  await rig.discard(name);
});
