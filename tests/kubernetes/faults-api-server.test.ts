import { describe, expect, onTestFinished, test } from 'vitest';
import { until } from '../kit/until.ts';
import { setUpFaultServer } from './fault-server.ts';

const rig = setUpFaultServer('faults-api');

describe('the API server', () => {
  test('unreachable while the server is killed: reported, and no workspace counts as lost', async () => {
    const calm = await rig.createRunning();
    const ending = await rig.createRunning();
    rig.testbed.apiProxy.disconnect();

    expect(await until(rig.getCluster, ({ state }) => state === 'away')).toMatchObject({
      reason: expect.any(String),
    });
    const late = await rig.create();
    await rig.waitForLog(late.name, /The cluster default (is unreachable|does not answer)/);
    expect((await rig.testbed.transitions.stop(rig.server, ending.name)).status).toBe(202);
    await rig.waitForLog(ending.name, /The cluster default (is unreachable|does not answer)/);
    const seen = await rig.waitForWorkspace(calm.name, ({ reason }) =>
      /The cluster default is unreachable/.test(reason ?? ''),
    );
    expect(seen).toMatchObject({
      status: 'running',
      agent: { connected: true },
      latestBuild: { number: 1 },
    });
    expect((await rig.testbed.request(rig.server, 'GET', '/api/v1/orphans')).body).toEqual({
      items: [],
      unseen: ['default'],
    });

    await rig.restartServer();
    await until(rig.getCluster, ({ state }) => state === 'away');
    // The new server has to try several times and still conclude nothing.
    const tries = rig.testbed.apiProxy.rejected();
    await until(rig.testbed.apiProxy.rejected, (now) => now >= tries + 10);
    expect(await rig.testbed.getWorkspace(rig.server, calm.name)).toMatchObject({
      status: 'running',
      latestBuild: { number: 1 },
    });
    expect(await rig.testbed.getWorkspace(rig.server, late.name)).toMatchObject({ status: 'starting' });
    expect(await rig.testbed.getWorkspace(rig.server, ending.name)).toMatchObject({ status: 'stopping' });
    rig.testbed.apiProxy.restore();

    await until(rig.getCluster, ({ state }) => state === 'ready');
    expect(await rig.waitForBuild(late.name)).toMatchObject({
      status: 'running',
      latestBuild: { number: 1 },
    });
    expect(await rig.waitForBuild(ending.name)).toMatchObject({ status: 'stopped' });
    expect(await rig.waitForWorkspace(calm.name, ({ reason }) => reason === null)).toMatchObject({
      status: 'running',
      latestBuild: { number: 1 },
    });
    expect((await rig.testbed.cluster.getPod(calm.namespace, 'workspace-0'))!.metadata.uid).toBe(calm.uid);
    await rig.expectHome(calm.namespace);
    for (const { name } of [calm, ending, late]) await rig.discard(name);
  });

  test('changes that a stalled watch missed are found', async () => {
    await rig.restartServer({ SILENT_MS: '10000' });
    onTestFinished(async () => {
      await rig.restartServer();
    });
    const { name, namespace } = await rig.createRunning();
    rig.testbed.apiProxy.stall();
    await rig.testbed.cluster.remove({ apiVersion: 'v1', kind: 'Pod', namespace, name: 'workspace-0' });
    const after = await rig.waitForRecovery(name, 1);
    expect(after.latestBuild).toMatchObject({
      initiator: 'system',
      reason: 'The pod was deleted, not by cde.',
    });
    await rig.expectHome(namespace);
    await rig.discard(name);
  });
});
