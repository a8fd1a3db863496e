// biome-ignore-all lint/suspicious/noTemplateCurlyInString: for sh
import { testProviderContract } from '@cde/server/providers/conformance/conformance.ts';
import { drive, finish, once } from '@cde/server/providers/conformance/steps.ts';
import type { Provider, WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../kit/until.ts';
import { testIncus } from './incus-engine.ts';
import { incusImages } from './incus-image.ts';
import { conformanceSubject, launchOf, makeScene, makeSpec, type Scene } from './incus-scene.ts';

const missing = testIncus() ? null : `No Incus: ${process.env.CDE_TEST_INCUS_MISSING}`;

test.runIf(missing)('this machine can run Incus', (context) => {
  // Elsewhere than in CI it is no fault that it cannot.
  if (process.env.CI) throw new Error(missing!);
  context.skip(missing!);
});

if (!missing)
  testProviderContract('incus', async () => {
    const scene = await makeScene();
    return { ...conformanceSubject(scene), makeProvider: () => scene.provider() };
  });

describe.skipIf(missing)('a workspace on Incus', () => {
  let scene: Scene;
  let provider: Provider;
  beforeEach(async () => {
    scene = await makeScene();
    provider = scene.provider();
  });
  afterEach(async () => {
    await provider.close();
    await scene.close();
  });
  const starting = (spec: WorkspaceSpec, by = provider) =>
    finish((state, context) => by.start(spec, launchOf('b1'), state, context));
  const driving = (spec: WorkspaceSpec, by = provider) =>
    drive((state, context) => by.start(spec, launchOf('b1'), state, context));

  test('belongs to its developer, who has no rights of root, and whose token is nowhere', async () => {
    const spec = makeSpec();
    const { isolation } = await starting(spec);
    expect(isolation).toMatch(
      /^System container on Incus .* unprivileged, does not reach other workspaces; runs as user 1000/,
    );
    const agent = '$(systemctl show --property MainPID --value cde-agent)';
    const shown = await scene.inside(
      spec,
      '0',
      `hostname; stat -c %U:%a ~ada; cat ~ada/.image-version; ps -o user= -p ${agent}; grep -E 'CapEff|NoNewPrivs' /proc/${agent}/status; head -1 /proc/self/uid_map`,
    );
    expect(shown).toMatch(
      new RegExp(`^${spec.name}\nada:755\n12\nada\nCapEff:\t0+\nNoNewPrivs:\t1\n +0 +[1-9]\\d+ +\\d+\n$`),
    );
    const everywhere = await scene.inside(
      spec,
      '0',
      'ls -A / | grep token; cat /proc/[0-9]*/environ 2>&1 | tr "\\0" "\\n" | grep cde_agent_test; grep -r cde_agent_test /etc /var/log /run; true',
    );
    expect(everywhere).toBe('');
    const stored = await scene.incus('query', `/1.0/instances/cde-${spec.workspaceId}?recursion=1`);
    expect(stored).not.toContain('cde_agent_test');
  });

  test('can let its developer become root inside', async () => {
    const spec = makeSpec(incusImages.debian, '  allowPrivilegeEscalation: true\n');
    await starting(spec);
    expect(await scene.inside(spec, '1000', 'sudo -n id -u 2>&1')).toBe('0\n');
  });

  test('gets the dotfiles of a newer image, and keeps its home byte for byte', async () => {
    const spec = makeSpec();
    const { state } = await starting(spec);
    const sum =
      'cd ~ada; find data -type f -exec sha256sum {} + | sort; stat -c "%n %a %u %h %s" data/* | sort';
    const before = await scene.inside(
      spec,
      '1000',
      `cd ~ada; echo mine > .bashrc; mkdir data; head -c 3000000 /dev/urandom > data/large; ln data/large data/hard; ln -s large data/soft; truncate -s 1G data/sparse; chmod 750 data/sparse; rm data/sparse; echo x > 'data/a b'; chmod 4711 'data/a b'; ${sum}`,
    );
    const newer = { ...makeSpec(incusImages.debianNewer), workspaceId: spec.workspaceId };
    await finish((known, context) => provider.start(newer, launchOf('b2'), known, context), state);
    expect(await scene.inside(spec, '1000', 'cd ~ada; cat .image-version .bashrc .vimrc')).toBe(
      '12b\nmine\nset number\n',
    );
    expect(await scene.inside(spec, '1000', sum)).toBe(before);
  });

  test('reaches no other workspace', async () => {
    const [one, other] = [makeSpec(), makeSpec()];
    await starting(one);
    await starting(other);
    const address = (spec: WorkspaceSpec, last: number) =>
      scene.inside(spec, '0', `ip link set eth0 up; ip address add 10.77.0.${last}/24 dev eth0`);
    await address(one, 1);
    await address(other, 2);
    const connect = (from: WorkspaceSpec) =>
      scene.inside(
        from,
        '0',
        "timeout 3 bash -c 'exec 3<> /dev/tcp/10.77.0.2/22' 2>&1; ip neighbour show 10.77.0.2",
      );
    expect(await connect(other)).toMatch(/refused/);
    expect(await connect(one)).not.toMatch(/refused|lladdr/);
    // Without the isolation of its port, it reaches it: this tells that nothing else is in between.
    for (const { name } of await scene.instances())
      await scene.incus('config', 'device', 'set', name, 'eth0', 'security.port_isolation=false');
    await address(one, 1).catch(() => '');
    await address(other, 2).catch(() => '');
    expect(await connect(one)).toMatch(/refused/);
  });

  test('is limited in memory, processes and cores', async () => {
    const spec = makeSpec(incusImages.debian, '  memory: 512Mi\n  processes: 90\n  cpus: 1\n');
    const { isolation } = await starting(spec);
    expect(isolation).toMatch(/Limits: memory 512Mi, 1 CPUs, processes 90\.$/);
    const { code, stderr } = await scene
      .inside(spec, '1000', 'for i in $(seq 200); do sleep 30 & done; wait')
      .catch((error) => error);
    expect([code, stderr]).toEqual([expect.any(Number), expect.stringMatching(/fork|Resource temporarily/i)]);
    const limits = JSON.parse(await scene.incus('query', `/1.0/instances/cde-${spec.workspaceId}`)) as {
      config: Record<string, string>;
    };
    expect(limits.config).toMatchObject({ 'limits.memory': String(2 ** 29), 'limits.cpu': '1' });
  });

  test('whose instance was removed is gone, and starts again on its home', async () => {
    const spec = makeSpec();
    const { state } = await starting(spec);
    await scene.inside(spec, '1000', 'echo kept > ~ada/notes');
    const changed: string[] = [];
    provider.onChange((workspaceId) => void changed.push(workspaceId));
    await scene.incus('delete', '--force', `cde-${spec.workspaceId}`);
    await until(() => changed.includes(spec.workspaceId), 'the event');
    expect(await provider.observe(spec.workspaceId, state)).toMatchObject({ kind: 'gone', cause: 'removed' });
    await finish((known, context) => provider.start(spec, launchOf('b2'), known, context), state);
    expect(await scene.inside(spec, '1000', 'cat ~ada/notes')).toBe('kept\n');
  });

  test('that was shut down by another is gone for that reason', async () => {
    const spec = makeSpec();
    const { state } = await starting(spec);
    await scene.incus('stop', `cde-${spec.workspaceId}`);
    expect(await provider.observe(spec.workspaceId, state)).toMatchObject({ kind: 'gone', cause: 'removed' });
  });

  test('whose volume was deleted does not start with an empty home', async () => {
    const spec = makeSpec();
    const started = await starting(spec);
    const stopped = await finish(
      (state, context) => provider.stop(spec.workspaceId, state, context),
      started.state,
    );
    await scene.incus('storage', 'volume', 'delete', 'default', `cde-home-${spec.workspaceId}`);
    const result = await drive(
      (state, context) => provider.start(spec, launchOf('b2'), state, context),
      stopped.state,
    );
    expect(result).toMatchObject({ kind: 'failed', error: { code: 'home-lost' } });
  });

  test.each([
    ['image-not-found', makeSpec('none/1')],
    ['image-without-systemd', makeSpec(incusImages.bare)],
    ['instance-type-not-supported', makeSpec(incusImages.debian, '  type: virtual-machine\n')],
    ['incus-profile-missing', makeSpec(incusImages.debian, '  profiles: [none]\n')],
    ['incus-pool-missing', makeSpec(incusImages.debian, '  pool: none\n')],
    ['incus-network-missing', makeSpec(incusImages.debian, '  network: none\n')],
  ])('that cannot be started fails with the code %s', async (code, spec) => {
    expect(await driving(spec)).toMatchObject({ kind: 'failed', error: { code } });
    expect(await scene.instances()).toEqual([]);
  });

  test('is in a project that is created, keeps to its limits, and cannot be changed', async () => {
    const project = `team-${scene.installation}`;
    try {
      const [one, other] = [0, 1].map(() => makeSpec(incusImages.debian, `  project: ${project}\n`)) as [
        WorkspaceSpec,
        WorkspaceSpec,
      ];
      const { state } = await starting(one);
      expect(await scene.instances()).toMatchObject([{ project, status: 'Running' }]);
      expect(await scene.homes()).toMatchObject([{ project }]);
      await scene.incus('project', 'set', project, 'limits.instances=1');
      expect(await driving(other)).toMatchObject({ kind: 'failed', error: { code: 'quota-exceeded' } });
      const moved = { ...makeSpec(), workspaceId: one.workspaceId };
      expect(
        await drive((known, context) => provider.start(moved, launchOf('b2'), known, context), state),
      ).toMatchObject({ kind: 'failed', error: { code: 'project-change' } });
    } finally {
      await scene.close();
      for (const name of await scene.agentVolumes(project).catch(() => []))
        await scene.incus('storage', 'volume', 'delete', 'default', name, '--project', project);
      await scene.incus('project', 'delete', project).catch(() => '');
    }
  });

  test('has a home with a size and snapshots, which grows and does not shrink', async () => {
    const spec = makeSpec(
      incusImages.debian,
      '  snapshots: { schedule: "@daily", expiry: 2w }\n',
      'home: { size: 2Gi }\n',
    );
    const { state } = await starting(spec);
    expect(provider.describeHome(state)).toEqual({ directory: '/home/ada', size: '2Gi' });
    const config = async () => (await scene.homes())[0]!.config;
    expect(await config()).toMatchObject({
      size: String(2 ** 31),
      'snapshots.schedule': '@daily',
      'snapshots.expiry': '2w',
    });
    for (const [size, expected] of [
      ['3Gi', 3 * 2 ** 30],
      ['1Gi', 3 * 2 ** 30],
    ] as const) {
      const changed = {
        ...makeSpec(incusImages.debian, '', `home: { size: ${size} }\n`),
        workspaceId: spec.workspaceId,
      };
      await once((known, context) => provider.start(changed, launchOf('b1'), known, context), state);
      expect((await config()).size).toBe(String(expected));
    }
  });

  test('is started by two servers at once', async () => {
    const spec = makeSpec();
    const other = scene.provider();
    const results = await Promise.all([starting(spec), starting(spec, other)]);
    expect(results.map(({ kind }) => kind)).toEqual(['done', 'done']);
    expect(await scene.instances()).toHaveLength(1);
    expect(await scene.homes()).toHaveLength(1);
    await other.close();
  });

  test('waits for a server that does not answer, and concludes nothing', async () => {
    const spec = makeSpec();
    const { state } = await starting(spec);
    const unreachable = scene.provider({ address: { url: 'unix:///nowhere/unix.socket' } });
    const log: string[] = [];
    const stop = (known: typeof state, context: Parameters<Provider['stop']>[2]) =>
      unreachable.stop(spec.workspaceId, known, context);
    const step = await once(stop, state, log);
    expect(step).toMatchObject({ kind: 'pending', message: expect.stringContaining('does not answer') });
    await once(stop, step.state, log);
    expect(log).toHaveLength(1);
    expect(await unreachable.observe(spec.workspaceId, state)).toMatchObject({ kind: 'unknown' });
    expect(await unreachable.purgeHomes({})).toEqual({ purged: [], incomplete: true });
    await unreachable.close();
    expect(await provider.observe(spec.workspaceId, state)).toMatchObject({ kind: 'running' });
  });
});
