import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { agentTestImage } from '../cluster/agent-image.ts';
import { importBuildkitImage } from '../cluster/buildkit-image.ts';
import { images } from '../cluster/images.ts';
import { nodeAddress } from '../cluster/layout.ts';
import { type Registry, startRegistry } from '../cluster/registry.ts';
import { tool } from '../cluster/tool.ts';
import { freePort } from '../kit/free-port.ts';
import { type Machine, makeMachine } from '../kit/machine.ts';
import { smallRequests } from './requests.ts';

/**
 * Images built in the cluster from a laptop: a real BuildKit in the workspace's namespace, a real registry, real
 * buildx and buildctl. BuildKit runs privileged; rootless does not run on every node, and not on the test cluster's.
 */

const kubeconfig = process.env.CDE_TEST_KUBECONFIG ?? join(homedir(), '.cache/cde/cluster/kubeconfig');
const bigBytes = 8 * 2 ** 20;
/** Of the user `ada`, password `opensesame`. */
const htpasswd = 'ada:$2b$05$azH3BMKlndT2dalz2y1Y7uuO.kk1qjZoU2z8kMuYq3N4Hku64N2CC\n';
/** Of the workspace, and of a secret on the cluster. */
const unique = `build-${Date.now().toString(36)}`;
let machine: Machine;
let registry: Registry;
let guarded: Registry;
/** Serves what a build fetches by itself, past the laptop: `/big` at once, others when `release` is called. */
let files: Server;
let server: Awaited<ReturnType<Machine['start']>>;
let settings: Record<string, string>;
const slow = { asked: () => {}, release: () => {} };
let context: string;
/** PATHs with these build tools and no others. */
const paths = { buildx: '', buildctl: '', none: '' };
let builder: string;
let attempts = 0;

async function ok(...args: string[]): Promise<string> {
  const ran = await machine.cde(...args);
  expect(ran.code, `cde ${args.join(' ')}\n${ran.stdout}\n${ran.stderr}`).toBe(0);
  return `${ran.stdout}${ran.stderr}`.trim();
}
const json = async (...args: string[]) => {
  const ran = await machine.cde(...args, '--json');
  expect(ran.code, `cde ${args.join(' ')}\n${ran.stdout}\n${ran.stderr}`).toBe(0);
  return JSON.parse(ran.stdout);
};
const admin = async (...args: string[]) => {
  const ran = await machine.run('kubectl', ['--kubeconfig', kubeconfig, ...args]);
  expect(ran.code, ran.stderr).toBe(0);
  return ran.stdout;
};
async function template(section: string): Promise<void> {
  const folder = join(machine.folder, 'template');
  await mkdir(folder, { recursive: true });
  await writeFile(
    join(folder, 'template.yaml'),
    `name: team
provider: kubernetes
home: { size: 64Mi }
kubernetes:
  image: ${images.debian}
  pullPolicy: IfNotPresent
  podSecurity: privileged
  memory: 256Mi
  requests: ${JSON.stringify(smallRequests)}
${section}`,
  );
  await ok('template', 'push', folder);
}

/** The manifest that a tag of the registry names, its digest, and its settings. */
async function pushed(tag: string) {
  const accept =
    'application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json';
  const url = `${registry.url}/v2/team/app`;
  const reply = await fetch(`${url}/manifests/${tag}`, { headers: { accept } });
  expect(reply.status, tag).toBe(200);
  const manifest = (await reply.json()) as { config: { digest: string }; layers: { size: number }[] | null };
  const config = await fetch(`${url}/blobs/${manifest.config.digest}`).then((blob) => blob.json());
  return {
    digest: reply.headers.get('docker-content-digest'),
    bytes: (manifest.layers ?? []).reduce((sum, { size }) => sum + size, 0),
    labels: (config as { config: { Labels?: Record<string, string> } }).config.Labels,
  };
}

async function makeLaptop(): Promise<void> {
  const root = fileURLToPath(new URL('../../node_modules/.bin', import.meta.url));
  const programs = {
    buildx: ['docker-buildx', await tool('buildx')],
    buildctl: ['buildctl', await tool('buildctl')],
  };
  const plain = join(machine.folder, 'bin');
  await mkdir(plain);
  for (const program of ['sh', 'ssh'])
    await symlink(
      (await machine.run('sh', ['-c', `command -v ${program}`])).stdout.trim(),
      join(plain, program),
    );
  const kubectl = (await machine.run('sh', ['-c', 'command -v kubectl'])).stdout.trim();
  await symlink(kubectl, join(plain, 'kubectl'));
  paths.none = [root, plain].join(delimiter);
  for (const [name, [as, program]] of Object.entries(programs) as ['buildx' | 'buildctl', string[]][]) {
    const folder = join(machine.folder, `bin-${name}`);
    await mkdir(folder);
    await symlink(program!, join(folder, as!));
    paths[name] = [paths.none, folder].join(delimiter);
  }
}

beforeAll(async () => {
  registry = await startRegistry();
  guarded = await startRegistry({ htpasswd });
  machine = await makeMachine();
  const big = randomBytes(bigBytes);
  files = createServer((request, response) => {
    if (request.url === '/big') return void response.end(big);
    slow.asked();
    const before = slow.release;
    slow.release = () => {
      before();
      response.end('at last');
    };
  }).listen(0, nodeAddress);
  await once(files, 'listening');
  context = join(machine.folder, 'app');
  await mkdir(context);
  await writeFile(
    join(context, 'Dockerfile'),
    `FROM scratch AS base
ARG VERSION=none
LABEL version=$VERSION
ADD http://${nodeAddress}:${(files.address() as { port: number }).port}/big /big
FROM base
COPY . /app
`,
  );
  await writeFile(join(context, '.dockerignore'), 'ignored\n');
  await writeFile(join(context, 'ignored'), randomBytes(bigBytes));
  await writeFile(join(context, 'main.txt'), 'hello\n');
  await makeLaptop();
  const port = await freePort();
  settings = {
    CDE_LISTEN: `${nodeAddress}:${port}`,
    CDE_ACCESS_URL: `http://${nodeAddress}:${port}`,
    CDE_LOCAL_PROVIDER: 'off',
    CDE_AGENT_IMAGE: await agentTestImage(),
    CDE_BUILDER_IMAGE: await importBuildkitImage(),
    // The server needs more of its machine than the laptop has.
    PATH: machine.env.PATH!,
  };
  server = await machine.start(settings);
  await ok('cluster', 'add', 'one', '--kubeconfig', kubeconfig, '--region', 'here');
  builder = `  builder:
    rootless: false
    memory: 512Mi
    cache: 1Gi
    insecureRegistries: ["${registry.host}", "${guarded.host}"]
`;
  await template(builder);
  await ok('create', unique, '--template', 'team', '--no-wait');
  machine.env.PATH = paths.buildx;
});
afterAll(async () => {
  await machine?.cde('delete', unique, '--yes', '--discard-home').catch(() => {});
  await machine?.run('kubectl', [
    '--kubeconfig',
    kubeconfig,
    'delete',
    'secret',
    unique,
    '--ignore-not-found',
  ]);
  await machine?.remove();
  files?.close();
  await registry?.stop();
  await guarded?.stop();
});

test('built and pushed in the cluster: only the context is uploaded, and nothing of the image downloaded', async () => {
  const image = `${registry.host}/team/app:1`;
  // The workspace is still starting, and its builder with it: both are waited for.
  const words = ['--workspace', unique, '--build-arg', 'VERSION=7'];
  const built = await json('build', context, '-t', image, '--push', ...words);
  expect(built).toMatchObject({ workspace: unique, images: [image], pushed: true, tool: 'docker-buildx' });
  const there = await pushed('1');
  expect(there).toMatchObject({ digest: built.digest, labels: { version: '7' } });
  expect(there.bytes).toBeGreaterThan(bigBytes);
  // Without the context's `ignored`, and without the layers that were made in the cluster.
  expect(built.sentBytes).toBeLessThan(bigBytes / 8);
  expect(built.receivedBytes).toBeLessThan(bigBytes / 8);
});

test('a second build comes from the cache; without --push the image stays there, which the output says', async () => {
  const image = `${registry.host}/team/app:cached`;
  const again = await ok('build', context, '-t', image, '--build-arg', 'VERSION=7');
  expect(again).toMatch(/\[base 1\/1\] ADD .*\n(.*\n)*?.*CACHED/);
  expect(again).toContain(`stays in the cache of the builder of ${unique}`);
  expect(await registry.tags('team/app')).toEqual(['1']);
});

test('buildctl, another Dockerfile and a single stage work as well', async () => {
  machine.env.PATH = paths.buildctl;
  try {
    const image = `${registry.host}/team/app:ctl`;
    const built = await json('build', context, '-t', image, '-t', `${registry.host}/team/app:too`, '--push');
    expect(built).toMatchObject({ tool: 'buildctl', digest: (await pushed('ctl')).digest });
    expect((await pushed('too')).digest).toBe(built.digest);
    expect(built.sentBytes).toBeLessThan(bigBytes / 8);
    const other = join(machine.folder, 'Other');
    await writeFile(other, 'FROM scratch AS one\nLABEL stage=one\nFROM scratch\nLABEL stage=two\n');
    await ok('build', context, '-f', other, '--target', 'one', '-t', image, '--push', '--no-cache');
    expect((await pushed('ctl')).labels).toEqual({ stage: 'one' });
  } finally {
    machine.env.PATH = paths.buildx;
  }
});

test('each failure has its own code', async () => {
  const broken = join(machine.folder, 'broken');
  await mkdir(broken, { recursive: true });
  await writeFile(join(broken, 'Dockerfile'), 'FROM scratch\nCOPY nothing /\n');
  const failed = await machine.cde('build', broken);
  expect(failed.code).toBe(7);
  expect(failed.stderr).toContain('"/nothing": not found');
  expect(failed.stderr).toContain('[image-build-failed]');
  expect((await machine.cde('build', broken, '--push')).code).toBe(2);
  expect((await machine.cde('build', join(broken, 'Dockerfile'))).stderr).toContain('is not a folder');
  machine.env.PATH = paths.none;
  try {
    const missing = await machine.cde('build', context);
    expect(missing).toMatchObject({ code: 1, stderr: expect.stringContaining('[build-tool-missing]') });
  } finally {
    machine.env.PATH = paths.buildx;
  }
});

test('cde env points buildx and buildctl to the builder', async () => {
  await ok(
    'env',
    unique,
    '--',
    'docker-buildx',
    'build',
    '-t',
    `${registry.host}/team/app:env`,
    '--push',
    context,
  );
  expect(await registry.tags('team/app')).toContain('env');
  machine.env.PATH = paths.buildctl;
  try {
    const workers = ['buildctl', '--timeout', '300', 'debug', 'workers'];
    // On a busy machine buildctl can fail after it has printed them: it ends by sending its traces, within a second or two.
    await vi.waitFor(async () => expect(await ok('env', unique, '--', ...workers)).toContain('linux/amd64'));
  } finally {
    machine.env.PATH = paths.buildx;
  }
  expect(await ok('ssh', unique, '--', 'echo $BUILDKIT_HOST')).toBe('tcp://builder:1234');
});

test('a build continues while the server is killed and restarted', async () => {
  const folder = join(machine.folder, 'slow');
  await mkdir(folder, { recursive: true });
  const { port } = files.address() as { port: number };
  await writeFile(
    join(folder, 'Dockerfile'),
    `FROM scratch\nADD http://${nodeAddress}:${port}/slow-${++attempts} /slow\n`,
  );
  const asked = new Promise<void>((resolve) => {
    slow.asked = resolve;
  });
  const building = machine.begin(['build', folder, '-t', `${registry.host}/team/app:slow`, '--push']);
  await Promise.race([asked, building.ended]);
  // If the build's session has a direct path to the pod by then, it loses nothing.
  await server.kill();
  server = await machine.start(settings);
  slow.release();
  expect(await building.ended).toMatchObject({ code: 0, stdout: expect.stringContaining('pushed ') });
  expect(await registry.tags('team/app')).toContain('slow');
});

test('a stop ends the builder and keeps its cache', async () => {
  await ok('stop', unique);
  const { namespace } = await json('show', unique);
  expect(await admin('-n', namespace, 'get', 'pods', '-o', 'name')).toBe('');
  const refused = await machine.cde('build', context, '--workspace', unique, '--no-start');
  expect(refused).toMatchObject({ code: 5, stderr: expect.stringContaining('[workspace-not-running]') });
  // None runs, so it has to be named; then it is started.
  expect((await machine.cde('build', context)).code).toBe(5);
  const again = await ok('build', context, '--workspace', unique, '--build-arg', 'VERSION=7');
  expect(again).toMatch(/\[base 1\/1\] ADD .*\n(.*\n)*?.*CACHED/);
});

test("the template's credentials are used, and not left behind", async ({ task }) => {
  const docker = join(machine.env.HOME!, '.docker');
  if (task.result?.retryCount) {
    // The attempt before has published them, and has written settings of Docker.
    await rm(docker, { recursive: true, force: true });
    await template(builder);
    await ok('update', unique);
  }
  const image = `${guarded.host}/team/app:1`;
  const refused = await machine.cde('build', context, '-t', image, '--push');
  expect(refused.code).toBe(7);
  expect(refused.stderr).toMatch(/401|unauthorized|authorization/i);
  await admin('delete', 'secret', unique, '-n', 'default', '--ignore-not-found');
  await admin(
    ...['create', 'secret', 'docker-registry', unique, '-n', 'default', `--docker-server=${guarded.host}`],
    ...['--docker-username=ada', '--docker-password=opensesame'],
  );
  await admin('label', 'secret', unique, '-n', 'default', 'cde.dev/copy=true');
  // A volume cannot shrink, and need not.
  await template(`${builder.replace('cache: 1Gi', 'cache: 512Mi')}    registrySecret: default/${unique}\n`);
  await ok('update', unique);
  const { namespace } = await json('show', unique);
  const size = ['-o', 'jsonpath={.spec.resources.requests.storage}'];
  expect(await admin('-n', namespace, 'get', 'pvc', 'builder-cache', ...size)).toBe('1Gi');
  // The user's own settings of Docker stay as they are, and count.
  await mkdir(docker, { recursive: true });
  await writeFile(join(docker, 'config.json'), '{"credsStore":"none-such","auths":{}}');
  await chmod(join(docker, 'config.json'), 0o600);
  const built = await json('build', context, '-t', image, '--push');
  const authorization = `Basic ${Buffer.from('ada:opensesame').toString('base64')}`;
  const reply = await fetch(`${guarded.url}/v2/team/app/tags/list`, { headers: { authorization } });
  expect(await reply.json()).toMatchObject({ tags: ['1'] });
  expect(built.digest).toMatch(/^sha256:/);
  for (const folder of [machine.env.CDE_CONFIG_DIR!, machine.env.HOME!])
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true }))
      if (entry.isFile())
        expect(await readFile(join(entry.parentPath, entry.name), 'latin1')).not.toMatch(
          /opensesame|YWRhOm9wZW5zZXNhbWU=/,
        );
});

test('a version without a builder removes it and its cache', async () => {
  const { namespace } = await json('show', unique);
  await template('');
  await ok('update', unique);
  const refused = await machine.cde('build', context);
  expect(refused).toMatchObject({ code: 5, stderr: expect.stringContaining('[no-builder]') });
  const left = await admin('-n', namespace, 'get', 'all,configmap,pvc', '-o', 'name');
  expect(left).not.toMatch(/builder(?!-cache)/);
  await vi.waitFor(
    async () =>
      expect(await admin('-n', namespace, 'get', 'pvc', '-o', 'name')).toBe('persistentvolumeclaim/home\n'),
    { interval: 500 },
  );
});
