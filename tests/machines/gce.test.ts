import { testProviderContract } from '@cde/server/providers/conformance/conformance.ts';
import { drive, finish, once } from '@cde/server/providers/conformance/steps.ts';
import { testRandomWalk } from '@cde/server/providers/conformance/walk.ts';
import type { Provider, ProviderState, WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { until } from '../kit/until.ts';
import {
  conformanceSubject,
  type FakeScene,
  launchOf,
  makeFakeScene,
  makeRealScene,
  makeSpec,
  realProject,
} from './gce-scene.ts';

testProviderContract('gce, a fake of its API', async () => {
  const scene = await makeFakeScene();
  return { ...conformanceSubject(scene), makeProvider: () => scene.provider() };
});

testRandomWalk(
  'gce, a fake of its API',
  async () => {
    const scene = await makeFakeScene();
    return {
      ...conformanceSubject(scene),
      observesFromLists: true,
      async makeReplica() {
        const connection = await scene.compute.connect();
        return { provider: scene.provider({ address: scene.addressOf(connection) }), connection };
      },
      updateOf: (spec: WorkspaceSpec) => ({ ...makeSpec('  disk: 20Gi\n'), workspaceId: spec.workspaceId }),
      async removeCompute({ workspaceId }: WorkspaceSpec) {
        for (const { name, zone, labels } of scene.compute.instances())
          if (labels['cde-workspace'] === workspaceId) scene.compute.removeInstance(zoneIn(zone!), name);
      },
    };
  },
  60,
);

if (realProject !== undefined)
  testProviderContract(
    `gce, the project ${realProject}`,
    async () => {
      const scene = await makeRealScene();
      return { ...conformanceSubject(scene), makeProvider: () => scene.provider() };
    },
    {
      isSlow: true,
      timeoutMs: 3600_000,
      only: [
        'starts, stops, and starts again on the same home',
        'a start of a newer build replaces the older compute and keeps the home',
        'every step can be repeated, also with the state before it',
        'a retained home can be taken over by the workspace that it belonged to',
        'a server killed at any step of a start leaves what the next one finishes',
        'a retained home survives until it is purged, and is restored into another workspace',
        'what belongs to no workspace is found and removed, and its home can be adopted',
        'a discarded home is gone',
      ],
    },
  );

const zoneIn = (url: string) => url.slice(url.lastIndexOf('/') + 1);

describe('a workspace on a fake of Compute Engine', () => {
  let scene: FakeScene;
  let provider: Provider;
  beforeEach(async () => {
    scene = await makeFakeScene();
    provider = scene.provider();
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    await provider.close();
    await scene.close();
  });

  type Context = Parameters<Provider['stop']>[2];
  const start =
    (spec: WorkspaceSpec, build = 'b1', by = provider) =>
    (state: ProviderState, context: Context) =>
      by.start(spec, launchOf(build, spec.workspaceId), state, context);
  const stop =
    ({ workspaceId }: WorkspaceSpec, by = provider) =>
    (state: ProviderState, context: Context) =>
      by.stop(workspaceId, state, context);
  const changed = (spec: WorkspaceSpec, section = '', file = '') => ({
    ...makeSpec(section, file),
    workspaceId: spec.workspaceId,
  });
  const running = () => scene.compute.instances().filter(({ status }) => status === 'RUNNING');
  const withRole = (role: string) =>
    scene.compute.disks().filter(({ labels }) => labels['cde-role'] === role);
  const homes = () => withRole('home');
  const files = (spec: WorkspaceSpec) => scene.guests.homeOf(spec.workspaceId);

  test('has a machine without incoming connections or a service account, whose home survives it', async () => {
    const spec = makeSpec('  labels: { team: shop }\n', 'home: { size: 5Gi }\n');
    const { state, isolation } = await finish(start(spec));
    expect(isolation).toMatch(
      /^Virtual machine on Google Compute \(e2-medium, europe-west3-[abc]\), accepts no connections/,
    );
    expect(provider.describeHome(state)).toEqual({ directory: '/home/ada', size: '5Gi' });
    const [instance] = running();
    expect(instance).toMatchObject({
      serviceAccounts: [],
      shieldedInstanceConfig: { enableSecureBoot: true, enableVtpm: true },
      labels: { team: 'shop', 'cde-owner': 'ada', 'cde-workspace-name': spec.name },
      networkInterfaces: [{ accessConfigs: [] }],
    });
    expect(JSON.stringify(instance)).not.toContain('cde_agent_test');
    expect(homes()).toMatchObject([{ sizeGb: '5', labels: { team: 'shop', 'cde-used': 'true' } }]);
    const attached = instance!.disks.find(
      ({ deviceName }: { deviceName: string }) => deviceName === 'cde-home',
    );
    expect(attached).toMatchObject({ autoDelete: false });
    expect(scene.compute.firewalls()).toMatchObject([
      { direction: 'INGRESS', denied: [{ IPProtocol: 'all' }], targetTags: instance!.tags.items },
    ]);
    expect(await provider.nodes!()).toMatchObject({
      nodes: [
        { name: instance!.name, state: 'ready', workspaceIds: [spec.workspaceId], capacity: { cpus: 2 } },
      ],
      unseen: [],
    });
    await finish(stop(spec), state);
    expect(scene.compute.instances()).toEqual([]);
    expect(withRole('root')).toEqual([]);
    expect(homes()).toHaveLength(1);
  });

  test('is started by two servers at once, with one machine and one home', async () => {
    const spec = makeSpec();
    const other = scene.provider();
    const results = await Promise.all([finish(start(spec)), finish(start(spec, 'b1', other))]);
    expect(results.map(({ kind }) => kind)).toEqual(['done', 'done']);
    expect(running()).toHaveLength(1);
    expect(homes()).toHaveLength(1);
    await other.close();
  });

  test('has a home that grows, and moves to another zone with its files', async () => {
    const spec = makeSpec('  zones: [europe-west3-a]\n', 'home: { size: 5Gi }\n');
    const { state } = await finish(start(spec));
    (await files(spec)).set('notes', 'kept');
    const [before] = homes();
    const there = (size: string) => changed(spec, '  zones: [europe-west3-b]\n', `home: { size: ${size} }\n`);
    const moved = await finish(start(there('8Gi'), 'b2'), state);
    expect((await files(spec)).get('notes')).toBe('kept');
    const after = homes();
    expect(after.map(({ zone }) => zoneIn(zone!))).toEqual(['europe-west3-b']);
    expect(after[0]!.id).not.toBe(before!.id);
    const grown = await finish(start(there('8Gi'), 'b3'), moved.state);
    expect(homes()).toMatchObject([{ sizeGb: '8' }]);
    await finish(start(there('2Gi'), 'b4'), grown.state);
    expect(homes()).toMatchObject([{ sizeGb: '8' }]);
    const left = (await provider.objects!.list()).filter(({ kind }) => kind === 'volume');
    expect(left, 'what the move has left').toEqual([]);
  });

  test('keeps its machine over a stop if the template says so, until the template changes', async () => {
    const spec = makeSpec('  onStop: keep\n');
    const first = await finish(start(spec));
    const [machine] = running();
    (await files(spec)).set('notes', 'kept');
    const stopped = await finish(stop(spec), first.state);
    expect(scene.compute.instances()).toMatchObject([{ status: 'TERMINATED' }]);
    expect(await provider.observe(spec.workspaceId, stopped.state)).toMatchObject({ kind: 'gone' });

    const second = await finish(start(spec, 'b2'), stopped.state);
    expect(running()).toMatchObject([{ name: machine!.name }]);
    expect((await files(spec)).get('notes')).toBe('kept');

    const again = await finish(stop(spec), second.state);
    await finish(start(changed(spec, '  onStop: keep\n  disk: 20Gi\n'), 'b3'), again.state);
    expect(running()).toHaveLength(1);
    expect(running()[0]!.name).not.toBe(machine!.name);
    expect((await files(spec)).get('notes')).toBe('kept');
  });

  test('has snapshots of its home, which are deleted with it', async () => {
    const spec = makeSpec('  snapshots: { keep: 2 }\n');
    let state: ProviderState = {};
    for (const [index, count] of [1, 2, 2].entries()) {
      state = (await finish(start(spec, `b${index}`), state)).state;
      state = (await finish(stop(spec), state)).state;
      await finish(stop(spec), state);
      await until(() => scene.compute.snapshots().length === count, `${count} snapshots`);
    }
    await finish((known, context) => provider.remove(spec.workspaceId, known, 'discard', context), state);
    await until(() => scene.compute.snapshots().length === 0, 'no snapshots');
  });

  test('does not lose its home to a changed setting of the machine', async () => {
    const spec = makeSpec();
    const { state } = await finish(start(spec));
    const home = () =>
      running()[0]!.disks.find(({ deviceName }: { deviceName: string }) => deviceName === 'cde-home');
    home().autoDelete = true;
    await until(async () => {
      await provider.observe(spec.workspaceId, state);
      return home().autoDelete === false;
    }, 'the repair');
  });

  test('does not start on an empty home if its disk, or what was on it, is lost', async () => {
    const spec = makeSpec();
    const { state } = await finish(start(spec));
    const stopped = await finish(stop(spec), state);
    const [home] = homes();
    const zone = zoneIn(home!.zone!);
    scene.guests.loseFiles(`${zone}/${home!.name}`);
    expect(await drive(start(spec, 'b2'), stopped.state)).toMatchObject({
      kind: 'failed',
      error: { code: 'home-lost', detail: expect.stringContaining('no file system') },
    });
    await finish(stop(spec), stopped.state);
    scene.compute.removeDisk(zone, home!.name);
    expect(await drive(start(spec, 'b3'), stopped.state)).toMatchObject({
      kind: 'failed',
      error: { code: 'home-lost' },
    });
  });

  test('that does not boot fails with its console in the log, and leaves no machine', async () => {
    scene.guests.keepDown();
    const hourMs = 3600_000;
    let isLate = false;
    const impatient = scene.provider({ now: () => new Date(Date.now() + (isLate ? hourMs : 0)) });
    const log: string[] = [];
    const spec = makeSpec();
    const booting = drive(start(spec, 'b1', impatient), {}, log);
    await until(() => running().length > 0, 'the machine');
    const [machine] = running();
    scene.compute.write(zoneIn(machine!.zone!), machine!.name, '[  3.1] Kernel panic - not syncing\r\n');
    isLate = true;
    expect(await booting).toMatchObject({
      kind: 'failed',
      error: { code: 'instance-boot-timeout', detail: expect.stringContaining('Kernel panic') },
    });
    expect(log.join('\n')).toContain('[  3.1] Kernel panic');
    await until(() => scene.compute.instances().length === 0, 'the end of the machine');
    await impatient.close();
  });

  const instances = /^POST \/zones\/[\w-]+\/instances$/;
  const disks = /^POST \/zones\/[\w-]+\/disks$/;
  test.each([
    [instances, 'operation', 503, 'ZONE_RESOURCE_POOL_EXHAUSTED', 'gcp-no-capacity'],
    [instances, 'operation', 503, 'ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS', 'gcp-no-capacity'],
    [instances, 'operation', 403, 'QUOTA_EXCEEDED', 'quota-exceeded'],
    [instances, 'call', 403, 'quotaExceeded', 'quota-exceeded'],
    [instances, 'call', 403, 'forbidden', 'gcp-not-authorized'],
    [disks, 'operation', 403, 'QUOTA_EXCEEDED', 'quota-exceeded'],
    [disks, 'call', 403, 'forbidden', 'gcp-not-authorized'],
    [/^POST \/global\/firewalls$/, 'call', 403, 'forbidden', 'gcp-not-authorized'],
    [/^GET \/zones$/, 'call', 403, 'accessNotConfigured', 'gcp-not-authorized'],
  ] as const)('says that %s was refused (%s, %d %s), and starts when it no longer is', async (call, of, status, reason, code) => {
    scene.connection.refuse({ call, of, status, reason });
    const spec = makeSpec();
    const failed = await drive(start(spec));
    expect(failed).toMatchObject({
      kind: 'failed',
      error: { code, detail: expect.stringContaining(reason) },
    });
    scene.connection.allowAll();
    await finish(start(spec, 'b2'), failed.state);
    expect(running()).toHaveLength(1);
    expect(homes()).toHaveLength(1);
  });

  test('tries the next zone if one has no capacity, as long as its home is empty', async () => {
    const spec = makeSpec();
    const refuseOnce = () =>
      scene.connection.refuse(
        { call: instances, of: 'operation', status: 503, reason: 'ZONE_RESOURCE_POOL_EXHAUSTED' },
        1,
      );
    refuseOnce();
    const log: string[] = [];
    const first = await drive(start(spec), {}, log);
    expect(first.kind).toBe('done');
    expect(
      log.filter((line) =>
        /^no capacity in europe-west3-[abc] \(ZONE_RESOURCE_POOL_EXHAUSTED\): trying europe-west3-[abc]$/.test(
          line,
        ),
      ),
    ).toHaveLength(1);
    await until(() => withRole('old-home').length === 0, 'the end of the empty home');
    const [home] = homes();
    (await files(spec)).set('notes', 'kept');

    const stopped = await finish(stop(spec), first.state);
    refuseOnce();
    expect(await drive(start(spec, 'b2'), stopped.state)).toMatchObject({
      kind: 'failed',
      error: { code: 'gcp-no-capacity' },
    });
    expect(homes()).toMatchObject([{ id: home!.id }]);
    await finish(start(spec, 'b3'), stopped.state);
    expect((await files(spec)).get('notes')).toBe('kept');
  });

  test('has its home in the next zone if one has no room for its disk', async () => {
    const reason = 'ZONE_RESOURCE_POOL_EXHAUSTED';
    scene.connection.refuse({ call: disks, of: 'operation', status: 503, reason }, 1);
    const log: string[] = [];
    expect(await drive(start(makeSpec()), {}, log)).toMatchObject({ kind: 'done' });
    expect(log.filter((line) => line.startsWith('no capacity in'))).toHaveLength(1);
    expect(homes()).toHaveLength(1);
  });

  test('waits while Google limits the rate of calls, and continues', async () => {
    const spec = makeSpec();
    scene.connection.refuse({ call: instances, of: 'call', status: 403, reason: 'rateLimitExceeded' }, 4);
    const log: string[] = [];
    expect(await drive(start(spec), {}, log)).toMatchObject({ kind: 'done' });
    expect(log.filter((line) => line.includes('Google limits how many requests'))).toHaveLength(1);
  });

  test.each([
    ['preempted', 'preempted', /reclaimed its spot instance/],
    ['hostError', 'node-lost', /host/],
  ] as const)('that ended by %s says so', async (type, cause, message) => {
    const spec = makeSpec('  spot: true\n');
    const { state } = await finish(start(spec));
    const [machine] = running();
    expect(machine!.scheduling).toMatchObject({
      provisioningModel: 'SPOT',
      instanceTerminationAction: 'STOP',
    });
    scene.compute.end(zoneIn(machine!.zone!), machine!.name, type);
    const seen = await until(
      () => provider.observe(spec.workspaceId, state),
      ({ kind }) => kind === 'gone',
    );
    expect(seen).toMatchObject({ cause, message: expect.stringMatching(message) });
    await finish(start(spec, 'b2'), state);
    expect(running()).toHaveLength(1);
  });

  test('waits for Google Compute if it does not answer, and concludes nothing', async () => {
    const spec = makeSpec();
    const { state } = await finish(start(spec));
    const connection = await scene.compute.connect();
    const unreachable = scene.provider({ address: scene.addressOf(connection) });
    connection.set('cut');
    const log: string[] = [];
    const step = await once(stop(spec, unreachable), state, log);
    expect(step).toMatchObject({ kind: 'pending', message: expect.stringContaining('does not answer') });
    await once(stop(spec, unreachable), step.state, log);
    expect(log).toHaveLength(1);
    expect(await unreachable.observe(spec.workspaceId, state)).toMatchObject({ kind: 'unknown' });
    expect(await unreachable.purgeHomes({})).toEqual({ purged: [], incomplete: true });
    expect((await unreachable.nodes!()).unseen).toMatchObject([{ name: 'gce acme-dev/europe-west3' }]);
    await unreachable.close();
    await connection.close();
    expect(await provider.observe(spec.workspaceId, state)).toMatchObject({ kind: 'running' });
  });

  test('takes over a retained home, or a purge deletes it, but not both', async () => {
    for (let round = 0; round < 5; round++) {
      const spec = makeSpec();
      const { state } = await finish(start(spec));
      (await files(spec)).set('notes', 'kept');
      const { state: retained } = await finish(
        (known, context) => provider.remove(spec.workspaceId, known, 'keep', context),
        state,
      );
      const heir = { ...makeSpec(), restore: { workspaceId: spec.workspaceId, state: retained } };
      const other = scene.provider();
      const [started, { purged }] = await Promise.all([
        drive(start(heir)),
        other.purgeHomes({ only: spec.workspaceId }),
      ]);
      if (started.kind === 'done') {
        expect(purged).toEqual([]);
        expect((await files(heir)).get('notes')).toBe('kept');
      } else expect(started).toMatchObject({ kind: 'failed', error: { code: 'home-lost' } });
      await other.close();
    }
  });

  test('is started with the credentials of the machine that the server runs on', async () => {
    const spec = makeSpec();
    const { url } = scene.connection;
    vi.stubEnv('GCE_METADATA_HOST', new URL(url).host);
    const { token: _, ...address } = scene.addressOf({ url });
    const other = scene.provider({ address });
    await finish(start(spec, 'b1', other));
    await other.close();

    vi.stubEnv('GOOGLE_APPLICATION_CREDENTIALS', '/nonexistent/key.json');
    const without = scene.provider({ address });
    expect(await drive(start(makeSpec(), 'b1', without))).toMatchObject({
      kind: 'failed',
      error: { code: 'gcp-not-authorized', detail: expect.stringContaining('/nonexistent/key.json') },
    });
    await without.close();
  });

  test('is observed with one list for all workspaces', async () => {
    const spec = makeSpec();
    const { state } = await finish(start(spec));
    const connection = await scene.compute.connect();
    const other = scene.provider({ address: scene.addressOf(connection), pollMs: 3600_000 });
    const observe = (_: unknown, index: number) =>
      other.observe(index === 0 ? spec.workspaceId : `other-${index}`, state);
    const seen = await Promise.all(Array.from({ length: 100 }, observe));
    expect(seen[0]).toEqual({ kind: 'running' });
    expect(connection.calls).toEqual(['GET /aggregated/instances']);
    await other.close();
    await connection.close();
  });
});
