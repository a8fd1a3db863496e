import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Endpoint } from '@cde/api/endpoint.ts';
import { Finding } from '@cde/api/findings.ts';
import { getUser } from '@cde/api/identity.ts';
import { startNetcheck } from '@cde/api/satellites.ts';
import { getWorkspace, listWorkspaces } from '@cde/api/workspaces.ts';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ownVersion } from '../../completion/version.ts';
import { cdePath, Refusal, startFakeServer } from '../../testing/cli.ts';
import { user, workspace } from '../../testing/objects.ts';
import type { Diagnosis } from './doctor.ts';

const { home, server, env } = await startFakeServer();
const probe = { method: 'GET', path: '/relay/v1/probe', status: 204 } as unknown as Endpoint;

beforeEach(() => {
  server.on(probe, () => undefined);
  server.on(getUser, () => user());
  server.on(listWorkspaces, () => ({ items: [workspace()], next: null }));
  server.on(startNetcheck, () => netcheckReply());
});
const netcheckReply = (more: object = {}) => ({
  token: 'probe',
  expiresAt: new Date(Date.now() + 60_000).toISOString(),
  version: ownVersion(),
  satellites: [{ name: 'eu', region: '', url: server.url }],
  ...more,
});

async function doctor(words: string[] = [], more: Record<string, string> = {}) {
  const ran = await home.run(['doctor', ...words, '--json'], { env: { ...env, ...more } });
  const { checks, findings } = JSON.parse(ran.stdout) as Diagnosis;
  for (const finding of findings) Finding.parse(finding);
  return {
    code: ran.code,
    findings,
    codes: findings.map(({ code }) => code),
    state: Object.fromEntries(checks.map(({ name, state }) => [name, state])),
  };
}

test('nothing is wrong: each check by name, and exit code 0', async () => {
  const found = await doctor();
  expect(found.state).toMatchObject({
    network: 'passed',
    configuration: 'passed',
    dns: 'passed',
    server: 'passed',
    'sign-in': 'passed',
    versions: 'passed',
    satellites: 'passed',
    workspace: 'passed',
  });
  // ssh is not configured in this home, which is no error; UDP reaches nothing here.
  expect(found.codes).toEqual(['ssh-not-configured', 'udp-blocked']);
  expect(found.code).toBe(0);
  const text = await home.run(['doctor'], { env });
  expect(text.stdout).toMatch(/^sign-in +ok$/m);
  expect(text.stdout).toMatch(
    /^warning: ssh does not know the hosts NAME\.cde yet\. \[ssh-not-configured\]$/m,
  );
  expect(text.stdout).toMatch(/^ {2}→ .*cde config-ssh/m);
});

const hasNamespaces = spawnSync('unshare', ['-rn', 'true']).status === 0;
test.skipIf(!hasNamespaces)('without any network it says only that', () => {
  const ran = spawnSync('unshare', ['-rn', process.execPath, cdePath, 'doctor', '--json'], {
    env: { ...home.env, CDE_URL: 'https://cde.example.invalid', CDE_TOKEN: 'x' },
    encoding: 'utf8',
  });
  const { checks, findings } = JSON.parse(ran.stdout) as Diagnosis;
  expect(ran.status).toBe(6);
  expect(findings.map(({ code }) => code)).toEqual(['no-network']);
  expect(checks.filter(({ state }) => state !== 'skipped').map(({ name }) => name)).toEqual(['network']);
});

describe('what answers in place of the server', () => {
  const servers: ReturnType<typeof createServer>[] = [];
  afterAll(() => {
    for (const each of servers) each.close();
  });
  async function at(answer: RequestListener) {
    const other = createServer(answer).listen(0, '127.0.0.1');
    servers.push(other);
    await once(other, 'listening');
    return { CDE_URL: `http://127.0.0.1:${(other.address() as AddressInfo).port}` };
  }
  const errors = ({ findings }: { findings: Finding[] }) =>
    findings.filter(({ severity }) => severity === 'error').map(({ code }) => code);

  test('a captive portal, and not its consequences', async () => {
    const portal = await at((_request, response) =>
      response
        .writeHead(302, {
          location: 'http://login.hotel.example/',
          date: new Date(Date.now() - 86_400_000).toUTCString(),
        })
        .end(),
    );
    const found = await doctor([], portal);
    expect(errors(found)).toEqual(['captive-portal']);
    expect(found.codes).not.toContain('clock-wrong');
    expect(found.codes).not.toContain('not-a-cde-server');
    expect(found.state['sign-in']).toBe('skipped');
    expect(found.code).toBe(6);
  });

  test('another program, a proxy whose server is down, nothing at all', async () => {
    const other = await at((_request, response) => response.writeHead(404).end());
    expect(errors(await doctor([], other))).toEqual(['not-a-cde-server']);
    const proxy = await at((_request, response) => response.writeHead(502).end());
    expect(errors(await doctor([], proxy))).toEqual(['server-unavailable']);
    expect(errors(await doctor([], { CDE_URL: 'http://127.0.0.1:1' }))).toEqual(['server-unreachable']);
    expect(errors(await doctor([], { CDE_URL: 'http://cde.example.invalid' }))[0]).toMatch(/^dns-/);
  });

  test('a clock that is wrong by an hour, as a warning as long as all else works', async () => {
    const late = await at((_request, response) =>
      response.writeHead(204, { date: new Date(Date.now() + 3_600_000).toUTCString() }).end(),
    );
    const { findings } = await doctor([], late);
    expect(findings.find(({ code }) => code === 'clock-wrong')).toMatchObject({
      severity: 'warning',
      message: expect.stringMatching(/^The clock of this machine is .* behind\.$/),
    });
  });
});

test('no server, and a token that the server rejects, end with 4', async () => {
  const without = await home.run(['doctor', '--json']);
  expect(without.code).toBe(4);
  expect(JSON.parse(without.stdout).findings).toMatchObject([{ code: 'no-server', severity: 'error' }]);
  server.on(getUser, () => {
    throw new Refusal(401, { code: 'token-expired', message: 'The token has expired.' });
  });
  const { code, findings, state } = await doctor();
  expect(code).toBe(4);
  expect(findings[0]).toMatchObject({ code: 'token-expired', actions: [{ kind: 'sign-in' }] });
  expect(state).toMatchObject({ satellites: 'skipped', versions: 'skipped', workspace: 'skipped' });
});

test('satellites that cannot be reached, and another release of the server', async () => {
  const gone = { name: 'gone', region: '', url: 'http://127.0.0.1:1' };
  server.on(startNetcheck, () =>
    netcheckReply({ version: '9.9.9', satellites: [gone, { name: 'eu', region: '', url: server.url }] }),
  );
  const some = await doctor();
  expect(some.code).toBe(0);
  expect(some.codes).toEqual(expect.arrayContaining(['version-mismatch', 'satellite-unreachable']));
  server.on(startNetcheck, () => netcheckReply({ satellites: [gone] }));
  const none = await doctor(['web']);
  expect(none).toMatchObject({ code: 6, state: { satellites: 'failed', workspace: 'skipped' } });
  expect(none.codes[0]).toBe('satellites-unreachable');
  expect(none.codes).not.toContain('udp-blocked');
});

test('a workspace that does not run, and one whose agent is missing', async () => {
  server.on(getWorkspace, () => workspace({ status: 'stopped', desired: 'stopped' }));
  const stopped = await doctor(['web']);
  expect(stopped).toMatchObject({ code: 5, state: { workspace: 'failed' } });
  expect(stopped.findings[0]).toMatchObject({
    code: 'workspace-not-running',
    actions: [{ kind: 'start-workspace' }],
  });
  const running = workspace({ status: 'running' });
  server.on(listWorkspaces, () => ({
    items: [{ ...running, agent: { ...running.agent, connected: false } }],
    next: null,
  }));
  const missing = await doctor();
  expect(missing.code).toBe(5);
  expect(missing.codes[0]).toBe('agent-not-connected');
});

describe('ssh and editors', () => {
  const ssh = join(home.path, '.ssh');
  afterEach(async () => {
    for (const folder of [ssh, join(home.path, '.vscode'), join(home.path, '.config/Code')])
      await rm(folder, { recursive: true, force: true });
  });
  /** ssh reads the home of the password database; here it is told. */
  const found = async () => (await doctor()).codes.filter((code) => /^(ssh|editor)/.test(code));

  test('configured, outdated, for a cde that is gone, unreadable', async () => {
    expect(await home.run(['config-ssh'], { env })).toMatchObject({ code: 0 });
    expect(await found()).toEqual([]);
    const hosts = join(ssh, 'cde', 'config');
    await writeFile(hosts, 'Host *.cde\n  ProxyCommand /usr/bin/env cde ssh --stdio %n\n');
    expect(await found()).toEqual(['ssh-config-outdated']);
    await writeFile(hosts, 'Host *.cde\n  ProxyCommand /opt/old/node cde.mjs ssh --stdio %n\n');
    expect((await doctor()).findings[0]).toMatchObject({ code: 'ssh-config-outdated', severity: 'error' });
    await writeFile(join(ssh, 'config'), 'Nonsense yes\n');
    expect(await found()).toEqual(['ssh-config-invalid']);
    await chmod(join(ssh, 'config'), 0o666);
    expect(await found()).toEqual(['ssh-config-permissions']);
  });

  test('an editor without the extension, and one that reads another configuration', async () => {
    await mkdir(join(home.path, '.vscode/extensions'), { recursive: true });
    expect(await found()).toContain('editor-extension-missing');
    await mkdir(join(home.path, '.vscode/extensions/ms-vscode-remote.remote-ssh-0.120.0'));
    expect(await found()).toEqual(['ssh-not-configured']);
    const settings = join(home.path, '.config/Code/User');
    await mkdir(settings, { recursive: true });
    await writeFile(
      join(settings, 'settings.json'),
      '{\n  // mine\n  "remote.SSH.configFile": "~/work/ssh",\n  "remote.SSH.path": "/opt/no/ssh"\n}\n',
    );
    expect(await found()).toEqual(['editor-ssh-missing', 'ssh-not-configured', 'editor-other-config']);
    expect((await doctor()).code).toBe(1);
  });
});

test('docs/diagnosis.md explains every finding', () => {
  const folder = new URL('./', import.meta.url);
  const sources = readdirSync(folder).filter((file) => !file.includes('.test.'));
  // The second argument, which may choose between two.
  const made = sources
    .flatMap((file) => [
      ...readFileSync(new URL(file, folder), 'utf8').matchAll(/makeFinding\(\s*[^,]+,\s*([^,]+),/g),
    ])
    .flatMap((match) => [...match[1]!.matchAll(/'([a-z-]+)'/g)]);
  const engine = readFileSync(new URL('../../../api/checks.ts', folder), 'utf8').matchAll(
    /code: '([a-z-]+)'/g,
  );
  const used = new Set([...made, ...engine].map((match) => match[1]!));
  expect(used.size).toBeGreaterThan(20);
  const page = readFileSync(new URL('../../../docs/diagnosis.md', folder), 'utf8');
  expect([...used].filter((code) => !page.includes(`\`${code}\``))).toEqual([]);
});
