// biome-ignore-all lint/suspicious/noTemplateCurlyInString: for sh
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { freshBundle } from '@cde/agent/bundle.ts';
import { testProviderContract } from '@cde/server/providers/conformance/conformance.ts';
import { drive, finish, once } from '@cde/server/providers/conformance/steps.ts';
import type { Provider, WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { agentArchive } from '../cluster/agent-image.ts';
import { images } from '../cluster/images.ts';
import { startRegistry } from '../cluster/registry.ts';
import { until } from '../kit/until.ts';
import { conformanceSubject, launchOf, makeScene, makeSpec, type Scene } from './docker-scene.ts';

/** ada, with the password opensesame. */
const htpasswd = 'ada:$2b$05$azH3BMKlndT2dalz2y1Y7uuO.kk1qjZoU2z8kMuYq3N4Hku64N2CC\n';

testProviderContract('docker', async () => {
  const scene = await makeScene();
  return { ...conformanceSubject(scene), makeProvider: () => scene.provider() };
});

/** The agent as another version of the server would have it. */
async function otherAgent() {
  const folder = await mkdtemp(join(tmpdir(), 'cde-agent-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  await cp(dirname(await freshBundle()), folder, { recursive: true });
  await writeFile(join(folder, 'other.mjs'), `// ${folder}`);
  return { folder, node: process.execPath };
}

describe('a workspace on Docker', () => {
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

  test('belongs to its developer, who has no rights of root, and whose token is nowhere', async () => {
    const spec = makeSpec();
    const { isolation } = await starting(spec);
    expect(isolation).toMatch(/runs as user 1000, without capabilities/);
    const shown = await scene.inside(
      spec,
      '1000',
      'id -un; stat -c %U:%a ~ada; cat ~ada/.image-version; sudo -n true 2>&1 | head -1; grep CapEff /proc/self/status',
    );
    expect(shown).toMatch(
      /^ada\nada:755\n12\nsudo: The "no new privileges" flag .*\nCapEff:\t0000000000000000\n$/,
    );
    const everywhere = await scene.inside(
      spec,
      '0',
      'ls -A / | grep token; cat /proc/[0-9]*/environ 2>&1 | tr "\\0" "\\n" | grep cde_agent_test; true',
    );
    expect(everywhere).toBe('');
    expect(await scene.docker('inspect', `cde-${spec.workspaceId}`)).not.toContain('cde_agent_test');
  });

  test('can let its developer become root inside', async () => {
    const spec = makeSpec(images.debian, '  allowPrivilegeEscalation: true\n');
    await starting(spec);
    expect(await scene.inside(spec, '1000', 'sudo -n id -u')).toBe('0\n');
  });

  test('gets the dotfiles of a newer image, and keeps those that the developer changed', async () => {
    const spec = makeSpec();
    const { state } = await starting(spec);
    await scene.inside(spec, '1000', 'echo mine > ~ada/.bashrc');
    const newer = { ...makeSpec(images.debianNewer), workspaceId: spec.workspaceId };
    await finish((known, context) => provider.start(newer, launchOf('b2'), known, context), state);
    expect(await scene.inside(spec, '1000', 'cd ~ada; cat .image-version .bashrc .vimrc')).toBe(
      '12b\nmine\nset number\n',
    );
  });

  test('reaches no other workspace', async () => {
    const [one, other] = [makeSpec(), makeSpec()];
    await starting(one);
    await starting(other);
    const address = await scene.docker(
      'inspect',
      '--format',
      '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}',
      `cde-${other.workspaceId}`,
    );
    await scene.inside(
      other,
      '1000',
      'perl -MIO::Socket -e \'$s = IO::Socket::INET->new(LocalAddr => "0.0.0.0:8000", Listen => 5) or die; open F, ">", "/tmp/listens"; while ($c = $s->accept) { close $c }\' > /dev/null 2>&1 &',
    );
    await until(
      () =>
        scene.inside(other, '1000', 'test -e /tmp/listens').then(
          () => true,
          () => false,
        ),
      'the listener',
    );
    const connect = (to: string) =>
      `timeout 3 bash -c 'exec 3<> /dev/tcp/${to}/8000' 2> /dev/null && echo reached || echo not`;
    expect(await scene.inside(other, '1000', connect(address.trim()))).toBe('reached\n');
    expect(await scene.inside(one, '1000', connect(address.trim()))).toBe('not\n');
  });

  test('is limited in memory and processes', async () => {
    const spec = makeSpec(images.debian, '  memory: 256Mi\n  processes: 60\n');
    await starting(spec);
    const { code, stderr } = await scene
      .inside(spec, '1000', 'for i in $(seq 100); do sleep 30 & done; wait')
      .catch((error) => error);
    expect([code, stderr]).toEqual([expect.any(Number), expect.stringMatching(/fork|Resource temporarily/i)]);
  });

  test('whose container was removed is gone, and starts again on its home', async () => {
    const spec = makeSpec();
    const { state } = await starting(spec);
    await scene.inside(spec, '1000', 'echo kept > ~ada/notes');
    await scene.docker('rm', '--force', `cde-${spec.workspaceId}`);
    expect(await provider.observe(spec.workspaceId, state)).toMatchObject({ kind: 'gone', cause: 'removed' });
    await finish((known, context) => provider.start(spec, launchOf('b2'), known, context), state);
    expect(await scene.inside(spec, '1000', 'cat ~ada/notes')).toBe('kept\n');
  });

  test('leaves no agent of an earlier version of the server behind', async () => {
    const earlier = scene.provider({ agent: await otherAgent() });
    const spec = makeSpec();
    const { state } = await starting(spec, earlier);
    const agents = async () =>
      (await provider.objects!.list()).filter(
        ({ kind, workspaceId }) => kind === 'volume' && workspaceId === null,
      );
    const [old, ...others] = await agents();
    expect(others).toEqual([]);
    // The workspace still runs it.
    expect(await provider.objects!.remove(old!)).toBe(false);
    await finish((known, context) => provider.start(spec, launchOf('b2'), known, context), state);
    expect(await provider.objects!.remove(old!)).toBe(true);
    expect(await agents()).toEqual([]);
    expect(await scene.docker('volume', 'ls', '--quiet')).not.toContain(old!.name);
    await earlier.close();
  });

  test('whose home was pruned does not start with an empty one', async () => {
    const spec = makeSpec();
    const started = await starting(spec);
    const stopped = await finish(
      (state, context) => provider.stop(spec.workspaceId, state, context),
      started.state,
    );
    await scene.docker('volume', 'rm', `cde-home-${spec.workspaceId}`);
    const result = await drive(
      (state, context) => provider.start(spec, launchOf('b2'), state, context),
      stopped.state,
    );
    expect(result).toMatchObject({ kind: 'failed', error: { code: 'home-lost' } });
  });

  test.each([
    [images.musl, 'image-not-supported'],
    [images.scratch, 'image-not-supported'],
    ['cde-test/none:1', 'image-not-on-node'],
  ])('of the image %s fails with %s', async (image, code) => {
    const spec = makeSpec(image);
    const result = await drive((state, context) => provider.start(spec, launchOf('b1'), state, context));
    expect(result).toMatchObject({ kind: 'failed', error: { code } });
  });

  test('of an image without glibc runs with the agent of an image', async () => {
    const { name, file } = await agentArchive();
    await scene.docker('load', '--input', file);
    const by = scene.provider({ agent: { image: name } });
    const spec = makeSpec(images.musl);
    const { state } = await starting(spec, by);
    expect(await by.observe(spec.workspaceId, state)).toMatchObject({ kind: 'running' });
    expect(await scene.inside(spec, '1000', 'id -un; cat ~ada/.profile')).toBe(
      'ada\nexport IMAGE_DOTFILES=musl\n',
    );
    await by.close();
  });

  test('pulls its image with credentials, and says why it cannot', async () => {
    const registry = await startRegistry({ htpasswd, address: '127.0.0.1' });
    const folder = await mkdtemp(join(tmpdir(), 'cde-credentials-'));
    const credentialsFile = join(folder, 'config.json');
    const image = `${registry.host}/team/dev:1`;
    const run = (wanted: string, by: Provider) => {
      const spec = makeSpec(wanted, '', 'Always');
      return drive((state, context) => by.start(spec, launchOf('b1'), state, context));
    };
    try {
      const auth = Buffer.from('ada:opensesame').toString('base64');
      await writeFile(credentialsFile, JSON.stringify({ auths: { [registry.host]: { auth } } }));
      await scene.docker('tag', images.debian, image);
      await scene.docker('--config', folder, 'push', image);
      await scene.docker('image', 'rm', image);
      expect(await run(image, provider)).toMatchObject({
        kind: 'failed',
        error: { code: 'image-no-access' },
      });
      const by = scene.provider({ credentialsFile });
      expect(await run(`${image}00`, by)).toMatchObject({
        kind: 'failed',
        error: { code: 'image-not-found' },
      });
      expect(await run(image, by)).toMatchObject({ kind: 'done' });
      await by.close();
    } finally {
      await registry.stop();
      await scene.docker('image', 'rm', '--force', image).catch(() => '');
      await rm(folder, { recursive: true, force: true });
    }
  });

  test('waits for an engine that does not answer, and concludes nothing', async () => {
    const spec = makeSpec();
    const { state } = await starting(spec);
    const away = scene.provider({ address: { url: 'unix:///nowhere/docker.sock' } });
    const log: string[] = [];
    const step = await once((known, context) => away.stop(spec.workspaceId, known, context), state, log);
    expect(step).toMatchObject({ kind: 'pending', message: expect.stringContaining('does not answer') });
    await once((known, context) => away.stop(spec.workspaceId, known, context), step.state, log);
    expect(log).toHaveLength(1);
    expect(await away.observe(spec.workspaceId, state)).toMatchObject({ kind: 'unknown' });
    expect(await away.purgeHomes({})).toEqual({ purged: [], incomplete: true });
    await away.close();
    expect(await provider.observe(spec.workspaceId, state)).toMatchObject({ kind: 'running' });
  });
});
