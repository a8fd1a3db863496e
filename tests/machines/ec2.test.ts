import type { Instance, Volume } from '@aws-sdk/client-ec2';
import { testProviderContract } from '@cde/server/providers/conformance/conformance.ts';
import { drive, finish, once } from '@cde/server/providers/conformance/steps.ts';
import type { Provider, ProviderState, WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../kit/until.ts';
import { conformanceSubject, type FakeScene, launchOf, makeFakeScene } from './ec2-fake-scene.ts';

testProviderContract('ec2, with guests that only pretend', async () => {
  const scene = await makeFakeScene();
  return { ...conformanceSubject(scene), makeProvider: () => scene.provider() };
});

describe('a workspace on EC2, with guests that only pretend', () => {
  let scene: FakeScene;
  let provider: Provider;
  beforeEach(async () => {
    scene = await makeFakeScene();
    provider = scene.provider();
  });
  afterEach(async () => {
    await provider.close();
    await scene.close();
  });

  const start =
    (spec: WorkspaceSpec, build = 'b1', by = provider) =>
    (state: ProviderState, context: Parameters<Provider['stop']>[2]) =>
      by.start(spec, launchOf(build, spec), state, context);
  const stop =
    ({ workspaceId }: WorkspaceSpec, by = provider) =>
    (state: ProviderState, context: Parameters<Provider['stop']>[2]) =>
      by.stop(workspaceId, state, context);
  const changed = (spec: WorkspaceSpec, section = '', file = '') => ({
    ...scene.makeSpec(section, file),
    workspaceId: spec.workspaceId,
  });
  const homes = async () =>
    (await scene.ec2.describeVolumes({ Filters: [{ Name: 'tag:cde:role', Values: ['home'] }] })).Volumes ??
    [];
  const mappingOf = (instance: Instance, home: Volume) =>
    instance.BlockDeviceMappings!.find(({ Ebs }) => Ebs?.VolumeId === home.VolumeId)!;
  const isDeleted = (instance: Instance, home: Volume) => mappingOf(instance, home).Ebs!.DeleteOnTermination;
  const running = async () =>
    (await scene.guests.instances()).filter(({ State }) => State?.Name === 'running');

  test('has an instance without incoming connections, whose home survives it', async () => {
    const spec = scene.makeSpec('  tags: { team: shop }\n', 'home: { size: 5Gi }\n');
    const { state, isolation } = await finish(start(spec));
    expect(isolation).toMatch(
      /^Virtual machine on EC2 \(t3.medium, eu-central-1[abc]\), accepts no connections/,
    );
    expect(provider.describeHome(state)).toEqual({ directory: '/home/ada', size: '5Gi' });
    const [instance] = await running();
    expect(instance).toMatchObject({ MetadataOptions: { HttpTokens: 'required' } });
    const tagsOf = (tags: { Key?: string; Value?: string }[] = []) =>
      Object.fromEntries(tags.map(({ Key, Value }) => [Key, Value]));
    expect(tagsOf(instance!.Tags)).toMatchObject({
      team: 'shop',
      Name: `ada/${spec.name}`,
      'cde:owner': 'ada',
    });
    const [home] = await homes();
    expect(tagsOf(home!.Tags)).toMatchObject({ team: 'shop', 'cde:used': 'true' });
    expect(home).toMatchObject({ Size: 5, Encrypted: true });
    expect(isDeleted(instance!, home!)).toBe(false);
    const { SecurityGroups = [] } = await scene.ec2.describeSecurityGroups({
      GroupIds: instance!.SecurityGroups!.map(({ GroupId }) => GroupId!),
    });
    // Moto adds the default one.
    expect(SecurityGroups.filter(({ GroupName }) => GroupName !== 'default')).toMatchObject([
      { GroupName: `cde-${scene.installation}`, IpPermissions: [] },
    ]);
    expect(await provider.nodes!()).toMatchObject({
      nodes: [
        {
          name: instance!.InstanceId,
          state: 'ready',
          workspaceIds: [spec.workspaceId],
          capacity: { cpus: 2 },
        },
      ],
      unseen: [],
    });
  });

  test('is started by two servers at once, with one instance and one home', async () => {
    const spec = scene.makeSpec();
    const other = scene.provider();
    const results = await Promise.all([finish(start(spec)), finish(start(spec, 'b1', other))]);
    expect(results.map(({ kind }) => kind)).toEqual(['done', 'done']);
    expect(await running()).toHaveLength(1);
    expect(await homes()).toHaveLength(1);
    await other.close();
  });

  test('has a home that grows, and moves to another zone with its files', async () => {
    const spec = scene.makeSpec('  zone: eu-central-1a\n', 'home: { size: 5Gi }\n');
    const { state } = await finish(start(spec));
    (await scene.guests.homeOf(spec.workspaceId)).set('notes', 'kept');
    const [before] = await homes();
    const moved = await finish(
      start(changed(spec, '  zone: eu-central-1b\n', 'home: { size: 8Gi }\n'), 'b2'),
      state,
    );
    expect((await scene.guests.homeOf(spec.workspaceId)).get('notes')).toBe('kept');
    const after = await homes();
    expect(after).toMatchObject([{ AvailabilityZone: 'eu-central-1b' }]);
    expect(after[0]!.VolumeId).not.toBe(before!.VolumeId);
    const grown = await finish(
      start(changed(spec, '  zone: eu-central-1b\n', 'home: { size: 8Gi }\n'), 'b3'),
      moved.state,
    );
    expect(await homes()).toMatchObject([{ Size: 8 }]);
    const smaller = changed(spec, '  zone: eu-central-1b\n', 'home: { size: 2Gi }\n');
    await finish(start(smaller, 'b4'), grown.state);
    expect(await homes()).toMatchObject([{ Size: 8 }]);
    const ours = (await provider.objects!.list()).filter(({ kind }) => kind === 'volume');
    expect(ours, 'what the move has left').toEqual([]);
  });

  test('is resized by a template update, with its files, also if its instance was kept', async () => {
    const keep = '  onStop: keep\n';
    const spec = scene.makeSpec(keep, 'home: { size: 5Gi }\n');
    let { state } = await finish(start(spec));
    (await scene.guests.homeOf(spec.workspaceId)).set('notes', 'kept');
    const resize = async (build: string, instanceType: string, size: number) => {
      const wanted = changed(spec, keep, `home: { size: ${size}Gi }\n`);
      wanted.template.ec2!.instanceType = instanceType;
      const resized = await finish(start(wanted, build), state);
      state = resized.state;
      expect(resized.isolation).toContain(instanceType);
      expect(provider.describeHome(state)).toMatchObject({ size: `${size}Gi` });
      expect(await running()).toMatchObject([{ InstanceType: instanceType }]);
      expect(await homes()).toMatchObject([{ Size: size }]);
      expect((await scene.guests.homeOf(spec.workspaceId)).get('notes')).toBe('kept');
    };
    await resize('b2', 't3.xlarge', 8);
    expect((await provider.nodes!()).nodes).toMatchObject([
      { capacity: { cpus: 4, memoryBytes: 16 * 2 ** 30 } },
    ]);
    ({ state } = await finish(stop(spec), state));
    await resize('b3', 't3.large', 10);
  });

  test('keeps its instance over a stop if the template says so, until the template changes', async () => {
    const spec = scene.makeSpec('  onStop: keep\n');
    const first = await finish(start(spec));
    const [instance] = await running();
    (await scene.guests.homeOf(spec.workspaceId)).set('notes', 'kept');
    const stopped = await finish(stop(spec), first.state);
    expect(await scene.guests.instances()).toMatchObject([{ State: { Name: 'stopped' } }]);
    expect(await provider.observe(spec.workspaceId, stopped.state)).toMatchObject({ kind: 'gone' });

    const second = await finish(start(spec, 'b2'), stopped.state);
    expect(await running()).toMatchObject([{ InstanceId: instance!.InstanceId }]);
    expect((await scene.guests.homeOf(spec.workspaceId)).get('notes')).toBe('kept');

    const again = await finish(stop(spec), second.state);
    const larger = changed(spec, '  onStop: keep\n  disk: 20Gi\n');
    await finish(start(larger, 'b3'), again.state);
    const [replaced] = await running();
    expect(replaced!.InstanceId).not.toBe(instance!.InstanceId);
    expect((await scene.guests.homeOf(spec.workspaceId)).get('notes')).toBe('kept');
  });

  test('has snapshots of its home, which are deleted with it', async () => {
    const spec = scene.makeSpec('  snapshots: { keep: 2 }\n');
    let state: ProviderState = {};
    const snapshots = async () =>
      (await scene.ec2.describeSnapshots({ Filters: [{ Name: 'tag:cde:role', Values: ['snapshot'] }] }))
        .Snapshots ?? [];
    for (const [count, build] of [1, 2, 2].map((count, index) => [count, `b${index}`] as const)) {
      state = (await finish(start(spec, build), state)).state;
      state = (await finish(stop(spec), state)).state;
      await finish(stop(spec), state);
      expect(await snapshots()).toHaveLength(count);
    }
    await finish((known, context) => provider.remove(spec.workspaceId, known, 'discard', context), state);
    expect(await snapshots()).toEqual([]);
  });

  test('does not lose its home to a changed setting of the instance', async () => {
    const spec = scene.makeSpec();
    const { state } = await finish(start(spec));
    const [instance] = await running();
    const [home] = await homes();
    const { DeviceName } = mappingOf(instance!, home!);
    const flag = async () => isDeleted((await running())[0]!, home!);
    await scene.ec2.modifyInstanceAttribute({
      InstanceId: instance!.InstanceId,
      BlockDeviceMappings: [{ DeviceName, Ebs: { DeleteOnTermination: true } }],
    });
    expect(await flag()).toBe(true);
    await until(async () => {
      await provider.observe(spec.workspaceId, state);
      return (await flag()) === false;
    }, 'the repair');
  });

  test('does not start on an empty home if its volume, or what was on it, is lost', async () => {
    const spec = scene.makeSpec();
    const { state } = await finish(start(spec));
    const stopped = await finish(stop(spec), state);
    const [home] = await homes();
    scene.guests.loseFiles(home!.VolumeId!);
    expect(await drive(start(spec, 'b2'), stopped.state)).toMatchObject({
      kind: 'failed',
      error: { code: 'home-lost', detail: expect.stringContaining('no file system') },
    });
    await finish(stop(spec), stopped.state);
    await scene.ec2.deleteVolume({ VolumeId: home!.VolumeId });
    expect(await drive(start(spec, 'b3'), stopped.state)).toMatchObject({
      kind: 'failed',
      error: { code: 'home-lost' },
    });
  });

  test('that does not boot fails with its console in the log, and leaves no instance', async () => {
    scene.guests.keepDown('[  3.1] Kernel panic - not syncing\n');
    const hourMs = 3600_000;
    const impatient = scene.provider({
      now: () => new Date(Date.now() + (scene.guests.isDown() ? hourMs : 0)),
    });
    const log: string[] = [];
    const spec = scene.makeSpec();
    const failed = await drive(start(spec, 'b1', impatient), {}, log);
    expect(failed).toMatchObject({
      kind: 'failed',
      error: { code: 'instance-boot-timeout', detail: expect.stringContaining('Kernel panic') },
    });
    expect(log.join('\n')).toContain('[  3.1] Kernel panic');
    await until(async () => (await running()).length === 0, 'the end of the instance');
    await impatient.close();
  });

  test.each([
    ['RunInstances', 'InsufficientInstanceCapacity', 'aws-no-capacity'],
    ['RunInstances', 'VcpuLimitExceeded', 'quota-exceeded'],
    ['CreateVolume', 'VolumeLimitExceeded', 'quota-exceeded'],
    ['DescribeImages', 'UnauthorizedOperation', 'aws-not-authorized'],
  ])('says that %s was refused with %s, and starts when it no longer is', async (action, refusal, code) => {
    scene.connection.refuse(action, refusal);
    const spec = scene.makeSpec();
    const failed = await drive(start(spec));
    expect(failed).toMatchObject({
      kind: 'failed',
      error: { code, detail: expect.stringContaining(refusal) },
    });
    scene.connection.refuse(action, refusal, 0);
    await finish(start(spec, 'b2'), failed.state);
    expect(await running()).toHaveLength(1);
    expect(await homes()).toHaveLength(1);
  });

  test('goes to another zone if the first one has no capacity, unless its home is there', async () => {
    const spec = scene.makeSpec();
    scene.connection.refuse('RunInstances', 'InsufficientInstanceCapacity', 1);
    const log: string[] = [];
    const started = await drive(start(spec), {}, log);
    expect(started).toMatchObject({ kind: 'done' });
    expect(log.join('\n')).toMatch(/no capacity in (\S+) \(InsufficientInstanceCapacity\): trying (?!\1)/);
    const [home] = await homes();
    expect(await homes()).toHaveLength(1);
    expect(await running()).toMatchObject([{ Placement: { AvailabilityZone: home!.AvailabilityZone } }]);
    (await scene.guests.homeOf(spec.workspaceId)).set('notes', 'kept');

    const { state } = await finish(stop(spec), started.state);
    scene.connection.refuse('RunInstances', 'InsufficientInstanceCapacity', 1);
    const failed = await drive(start(spec, 'b2'), state);
    expect(failed).toMatchObject({ kind: 'failed', error: { code: 'aws-no-capacity' } });
    expect(await homes()).toMatchObject([{ VolumeId: home!.VolumeId }]);
    await finish(start(spec, 'b3'), failed.state);
    expect((await scene.guests.homeOf(spec.workspaceId)).get('notes')).toBe('kept');
  });

  test('waits while AWS limits the rate of calls, and goes on', async () => {
    const spec = scene.makeSpec();
    scene.connection.refuse('RunInstances', 'RequestLimitExceeded', 6);
    const log: string[] = [];
    expect(await drive(start(spec), {}, log)).toMatchObject({ kind: 'done' });
    expect(log.filter((line) => line.includes('AWS limits how many requests'))).toHaveLength(1);
  });

  test('waits for EC2 if it does not answer, and concludes nothing', async () => {
    const spec = scene.makeSpec();
    const { state } = await finish(start(spec));
    const connection = await scene.connect();
    const unreachable = scene.provider({ address: { region: 'eu-central-1', endpoint: connection.url } });
    connection.set('cut');
    const log: string[] = [];
    const step = await once(stop(spec, unreachable), state, log);
    expect(step).toMatchObject({ kind: 'pending', message: expect.stringContaining('does not answer') });
    await once(stop(spec, unreachable), step.state, log);
    expect(log).toHaveLength(1);
    expect(await unreachable.observe(spec.workspaceId, state)).toMatchObject({ kind: 'unknown' });
    expect(await unreachable.purgeHomes({})).toEqual({ purged: [], incomplete: true });
    await unreachable.close();
    await connection.close();
    expect(await provider.observe(spec.workspaceId, state)).toMatchObject({ kind: 'running' });
  });

  test('is observed with one call for all workspaces', async () => {
    const spec = scene.makeSpec();
    const { state } = await finish(start(spec));
    const connection = await scene.connect();
    const other = scene.provider({
      address: { region: 'eu-central-1', endpoint: connection.url },
      pollMs: 3600_000,
    });
    const observe = (_: unknown, index: number) =>
      other.observe(index === 0 ? spec.workspaceId : `other-${index}`, state);
    const seen = await Promise.all(Array.from({ length: 100 }, observe));
    expect(seen[0]).toEqual({ kind: 'running' });
    expect(connection.calls).toEqual(['DescribeInstances']);
    await other.close();
    await connection.close();
  });
});
