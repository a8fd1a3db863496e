import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, onTestFailed, test, vi } from 'vitest';
import { agentTestImage } from '../cluster/agent-image.ts';
import { importBuildkitImage } from '../cluster/buildkit-image.ts';
import { images } from '../cluster/images.ts';
import { nodeAddress } from '../cluster/layout.ts';
import { type Registry, startRegistry } from '../cluster/registry.ts';
import { tool } from '../cluster/tool.ts';
import { freePort } from '../kit/free-port.ts';
import { type Machine, makeMachine } from '../kit/machine.ts';
import { smallRequests } from './requests.ts';

/** A developer's whole day, by the commands that they type, on a real cluster. */

const kubeconfig = process.env.CDE_TEST_KUBECONFIG ?? join(homedir(), '.cache/cde/cluster/kubeconfig');
/** What the server is on the cluster: with rights in its own namespaces only. */
const account = { namespace: `day-${Date.now().toString(36)}`, name: 'cde' };
let machine: Machine;
let registry: Registry;

async function ok(...args: string[]): Promise<string> {
  const ran = await machine.cde(...args);
  expect(ran.code, `cde ${args.join(' ')}\n${ran.stdout}\n${ran.stderr}`).toBe(0);
  return ran.stdout.trim();
}
async function template(image: string, more = ''): Promise<void> {
  const folder = join(machine.folder, 'template');
  await mkdir(join(folder, 'manifests'), { recursive: true });
  await writeFile(
    join(folder, 'template.yaml'),
    `name: team
provider: kubernetes
home: { size: 1Gi }
env: { TEAM: blue }
startup: { script: 'date > ~/started' }
kubernetes:
  image: ${image}
  pullPolicy: IfNotPresent
  memory: 512Mi
  requests: ${JSON.stringify(smallRequests)}
  quota: { pods: 10 }
  podSecurity: privileged
  builder: { rootless: false, cache: 1Gi, insecureRegistries: ["${registry.host}"] }
${more}`,
  );
  await writeFile(
    join(folder, 'manifests/config.yaml'),
    `apiVersion: v1\nkind: ConfigMap\nmetadata: { name: team }\ndata: { owner: "\${{ workspace.owner }}" }\n`,
  );
  await ok('template', 'push', folder);
}

beforeAll(async () => {
  registry = await startRegistry();
  machine = await makeMachine();
  const bin = join(machine.folder, 'bin');
  await mkdir(bin);
  await symlink(await tool('buildctl'), join(bin, 'buildctl'));
  machine.env.PATH = `${bin}:${machine.env.PATH}`;
  const port = await freePort();
  await machine.start({
    CDE_LISTEN: `${nodeAddress}:${port}`,
    CDE_ACCESS_URL: `http://${nodeAddress}:${port}`,
    CDE_LOCAL_PROVIDER: 'off',
    CDE_AGENT_IMAGE: await agentTestImage(),
    CDE_BUILDER_IMAGE: await importBuildkitImage(),
  });
});
afterAll(async () => {
  await machine?.cde('delete', 'web', '--yes', '--discard-home').catch(() => {});
  await machine?.cde('delete', 'again', '--yes', '--discard-home').catch(() => {});
  const kinds = [
    'clusterrole',
    'clusterrolebinding',
    'validatingadmissionpolicy',
    'validatingadmissionpolicybinding',
  ];
  for (const kind of kinds) {
    const { stdout } = await machine.run('kubectl', ['--kubeconfig', kubeconfig, 'get', kind, '-o', 'name']);
    for (const name of stdout.split('\n').filter((each) => each.includes(account.namespace)))
      await machine.run('kubectl', ['--kubeconfig', kubeconfig, 'delete', name]);
  }
  await machine?.run('kubectl', [
    '--kubeconfig',
    kubeconfig,
    'delete',
    'namespace',
    account.namespace,
    '--wait=false',
  ]);
  await machine?.remove();
  await registry?.stop();
});

/** A kubeconfig of a service account with what `cde cluster role` prints. */
async function smallRole(): Promise<string> {
  const admin = (...args: string[]) => machine.run('kubectl', ['--kubeconfig', kubeconfig, ...args]);
  const printed = await ok(
    'cluster',
    'role',
    '--namespace',
    account.namespace,
    '--pod-security',
    'privileged',
  );
  const applied = await machine.run('kubectl', ['--kubeconfig', kubeconfig, 'apply', '-f', '-'], printed);
  expect(applied.code, applied.stderr).toBe(0);
  const { stdout: token } = await admin(
    '-n',
    account.namespace,
    'create',
    'token',
    account.name,
    '--duration=2h',
  );
  const { stdout: flat } = await admin('config', 'view', '--raw', '--flatten', '--minify', '-o', 'json');
  const config = JSON.parse(flat);
  config.users[0].user = { token: token.trim() };
  const file = join(machine.folder, 'small.json');
  await writeFile(file, JSON.stringify(config));
  return file;
}

let attempts = 0;
/** The workspace that the first test leaves. */
let again: string;

test('create, ssh, kubectl, build, stop, start on a new image, delete, restore', async () => {
  const web = `web-${++attempts}`;
  again = `again-${attempts}`;
  // `cde build` finds the only workspace that has a builder.
  onTestFailed(async () => {
    for (const name of [web, again]) await machine.cde('delete', name, '--yes', '--discard-home');
  });
  const small = await smallRole();
  if (attempts === 1)
    expect(await ok('cluster', 'add', 'one', '--kubeconfig', small, '--region', 'here')).toContain(
      'the default',
    );
  const checks = await ok('cluster', 'show', 'one');
  expect(checks).toContain('ok  permissions: everything needed');
  await template(images.debian);
  const folder = join(machine.folder, 'template');
  expect(await ok('template', 'validate', folder, '--cluster', 'one')).toContain(
    'The cluster one accepts its objects',
  );
  const config = join(folder, 'manifests/config.yaml');
  const right = await readFile(config, 'utf8');
  await writeFile(
    config,
    `${right}---\napiVersion: v1\nkind: Service\nmetadata: { name: odd }\nspec: { ports: [{ port: 99999 }], sort: x }\n`,
  );
  const refused = await machine.cde('template', 'validate', folder, '--cluster', 'one');
  expect(refused).toMatchObject({
    code: 1,
    stdout: expect.stringMatching(/The cluster rejects the Service odd\.\n.*sort/),
  });
  await writeFile(config, right);

  await ok('create', web, '--template', 'team');
  const shown = JSON.parse(await ok('show', web, '--json'));
  expect(shown).toMatchObject({ status: 'running', cluster: 'one', provider: 'kubernetes' });
  const { namespace, owner } = shown as { namespace: string; owner: string };
  expect(namespace).toBe(`cde-${owner}-${web}`);
  expect(await ok('ssh', web, '--', 'id -un; pwd; echo $TEAM; ls ~/started; echo mine > ~/work')).toBe(
    `${owner}\n/home/${owner}\nblue\n/home/${owner}/started`,
  );

  // kubectl, by a context of its own, good for this namespace and nothing else.
  const file = join(machine.folder, 'kube');
  await ok('kubeconfig', web, '--kubeconfig', file);
  const kubectl = (...args: string[]) => machine.run('kubectl', ['--kubeconfig', file, ...args]);
  expect((await kubectl('get', 'configmap', 'team', '-o', 'jsonpath={.data.owner}')).stdout).toBe(owner);
  expect((await kubectl('get', 'pods', '-o', 'name')).stdout).toContain('pod/workspace-0');
  expect((await kubectl('create', 'deployment', 'own', `--image=${images.pause}`)).code).toBe(0);
  expect((await kubectl('get', 'pods', '-n', 'kube-system')).stderr).toContain('forbidden');
  expect(await ok('env', web, '--', 'kubectl', 'get', 'deployment', '-o', 'name')).toBe(
    'deployment.apps/own',
  );
  expect((await machine.cde('env', web, '--', 'sh', '-c', 'exit 7')).code).toBe(7);

  // An image of one's own, built and pushed beside the workspace.
  const app = join(machine.folder, 'app');
  await mkdir(app, { recursive: true });
  await writeFile(join(app, 'Dockerfile'), 'FROM scratch\nCOPY . /\n');
  const image = (tag: number) => `${registry.host}/team/${web}:${tag}`;
  expect(await ok('build', app, '-t', image(1), '--push')).toContain(`pushed ${image(1)}@sha256:`);

  // Night.
  await ok('stop', web);
  expect(await ok('env', web, '--no-start', '--', 'kubectl', 'get', 'pods', '-o', 'name')).toBe('');

  // Morning, on a newer image.
  await template(images.debianNewer);
  await ok('update', web);
  expect(await ok('ssh', web, '--', 'cat ~/work; cat ~/.bashrc; ls ~/.vimrc')).toBe(
    `mine\nexport IMAGE_DOTFILES=12b\n/home/${owner}/.vimrc`,
  );
  expect((await kubectl('get', 'deployment', 'own', '-o', 'jsonpath={.spec.replicas}')).stdout).toBe('1');

  const rebuilt = await machine.cde('build', app, '-t', image(2), '--push');
  expect(rebuilt.stderr).toContain('CACHED');
  expect(await registry.tags(`team/${web}`)).toEqual(['1', '2']);

  await ok('delete', web, '--yes');
  const homes = async () => JSON.parse(await ok('home', 'list', '--json'));
  const home = (await homes()).find(({ workspace }: { workspace: string }) => workspace === web);
  expect(home).toMatchObject({ workspace: web, provider: 'kubernetes', cluster: 'one' });
  await ok('create', again, '--template', 'team', '--home', web);
  expect(await ok('ssh', again, '--', 'cat ~/work')).toBe('mine');
  expect(await homes()).not.toContainEqual(expect.objectContaining({ workspace: web }));
});

test('a deleted namespace comes back with its home, and the build gives the reason', async () => {
  const before = JSON.parse(await ok('show', again, '--json'));
  const admin = (...args: string[]) => machine.run('kubectl', ['--kubeconfig', kubeconfig, ...args]);
  await admin('delete', 'namespace', before.namespace, '--wait=false');
  await vi.waitFor(
    async () => {
      const now = JSON.parse(await ok('show', again, '--json'));
      expect(now.latestBuild.number).toBeGreaterThan(before.latestBuild.number);
      expect(now.status).toBe('running');
      expect(now.latestBuild.reason).toContain(before.namespace);
    },
    { timeout: 120_000, interval: 1_000 },
  );
  expect(await ok('ssh', again, '--', 'cat ~/work')).toBe('mine');
});

test('a start that cannot succeed gives the reason in the build’s log', async () => {
  await template('cde-test/nope:1', '  nodeSelector: { pool: none }\n');
  const stuck = `stuck-${++attempts}`;
  const creating = machine.begin(['create', stuck, '--template', 'team']);
  // The waiting command shows it as well.
  await creating.says(new RegExp(`^${stuck}: No node .*(pool|selector)`, 'im'));
  expect(await ok('logs', stuck)).toMatch(/No node .*(pool|selector)/i);
  creating.process.kill('SIGINT');
  expect(await creating.ended).toMatchObject({ code: 130 });
  await ok('delete', stuck, '--yes', '--discard-home');
});

test('the starter template starts with its minimum values and the database', async () => {
  const folder = join(machine.folder, 'starter');
  await cp(new URL('../../templates/kubernetes', import.meta.url), folder, { recursive: true });
  const edit = async (file: string, change: (text: string) => string) =>
    writeFile(join(folder, file), change(await readFile(join(folder, file), 'utf8')));
  // The images come from a registry that this machine does not reach.
  await edit('manifests/postgres.yaml', (text) =>
    text
      .replace('image: postgres:18', `image: ${images.debian}\n          command: [sleep, infinity]`)
      .replace(/command: \[pg_isready.*\]/, 'command: ["true"]'),
  );
  await ok('template', 'push', folder);
  const minima = { image: images.debian, cpus: 0.5, memory: 1, disk: 1, database: true };
  const given = Object.entries(minima).flatMap(([name, value]) => ['--param', `${name}=${value}`]);
  const least = `least-${++attempts}`;
  await ok('create', least, '--template', 'kubernetes', ...given);
  const rollout = ['kubectl', 'rollout', 'status', 'deployment/postgres', '--timeout=300s'];
  expect(await ok('env', least, '--', ...rollout)).toContain('successfully rolled out');
  await ok('delete', least, '--yes', '--discard-home');
});
