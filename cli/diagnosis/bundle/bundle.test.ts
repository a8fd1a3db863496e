import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Endpoint } from '@cde/api/endpoint.ts';
import { getUser } from '@cde/api/identity.ts';
import { startNetcheck } from '@cde/api/satellites.ts';
import { getBuildLog, getWorkspace, listBuilds, listWorkspaces } from '@cde/api/workspaces.ts';
import { expect, test } from 'vitest';
import { Refusal, startFakeServer } from '../../testing/cli.ts';
import { build, line, user, workspace } from '../../testing/objects.ts';
import { makeRedactor, removed } from './redact.ts';

const { home, server, env } = await startFakeServer();

/** Every planted secret contains it; none may come out in any form. */
const mark = 'Pl4nted';
let planted = 0;
const secret = () => `${mark}${planted++}x${randomBytes(9).toString('hex')}`;
const pem = (kind: string) =>
  `-----BEGIN ${kind}-----\n${Buffer.from(secret()).toString('base64')}\n${secret()}\n-----END ${kind}-----`;

/** Lines as programs print them, each with a secret of some form. */
const leaks = () => [
  `Authorization: Bearer ${secret()}`,
  `authorization: Basic ${secret()}`,
  `proxy-authorization: Digest username="ada", response="${secret()}"`,
  `Cookie: session=${secret()}; theme=dark-${secret()}`,
  `Set-Cookie: sid=${secret()}; HttpOnly`,
  `git clone https://ada:${secret()}@git.example.com/x.git`,
  `git clone https://${secret()}@git.example.com/x.git`,
  `postgres://app:${secret()}@db/app`,
  `redis://:${secret()}@cache/0`,
  `GET /hook?token=${secret()}&x=1`,
  `GET /blob?sv=1&sig=${secret()}`,
  `export API_KEY=${secret()}`,
  `DB_PASSWORD="${secret()}"`,
  `{"password":"${secret()}","accessToken":"${secret()}"}`,
  `client_secret: ${secret()}`,
  `mysql --password ${secret()}`,
  `curl --token=${secret()}`,
  `cde_${secret()}`,
  `ghp_${secret()}`,
  `AKIA${secret()}`,
  `eyJ${secret()}.eyJ${secret()}.${secret()}`,
  pem('RSA PRIVATE KEY'),
  pem('OPENSSH PRIVATE KEY'),
];

test('no secret that was planted comes out, and what support needs does', async () => {
  const token = `cde_${secret()}`;
  const config = join(home.path, '.config/cde');
  await mkdir(config, { recursive: true });
  const login = { alias: 'stand-in', token, username: 'ada', source: 'given' };
  const other = { alias: 'other', token: secret(), username: 'ada', source: 'browser' };
  await writeFile(
    join(config, 'config.json'),
    JSON.stringify({
      version: 1,
      current: server.url,
      servers: { [server.url]: login, 'https://other.example.com': other },
    }),
  );
  await writeFile(join(config, 'notes'), secret());
  const ssh = join(home.path, '.ssh');
  await mkdir(ssh, { recursive: true });
  await writeFile(join(ssh, 'id_ed25519'), pem('OPENSSH PRIVATE KEY'));
  await writeFile(
    join(ssh, 'config'),
    `# the password is ${secret()}\nHost *\n  SetEnv API_TOKEN=${secret()}\n  ProxyCommand nc -X connect -P ada:${secret()} --password ${secret()} %h\n`,
  );

  const probe = { method: 'GET', path: '/relay/v1/probe', status: 204 } as unknown as Endpoint;
  server.on(probe, () => undefined);
  server.on(getUser, () => user());
  const parameters = { region: 'eu', registry: secret(), note: `my ${secret()}` };
  const web = workspace({ parameters, reason: `It failed: ${leaks()[5]}` });
  server.on(getWorkspace, () => web);
  server.on(listWorkspaces, () => ({ items: [web], next: null }));
  server.on(listBuilds, () => ({ items: [build()], next: null }));
  server.on(getBuildLog, () => ({
    // The token of this machine, too, as it travels in some protocols.
    lines: [
      ...leaks(),
      `sent ${token}`,
      Buffer.from(token).toString('base64'),
      encodeURIComponent(token),
      'npm: 200 packages',
    ].map((text, at) => line(at + 1, text)),
    build: build(),
    done: true,
  }));
  server.on(startNetcheck, () => {
    throw new Refusal(403, { code: 'forbidden', message: 'You may not.', detail: `Bearer ${secret()}` });
  });

  const folder = await mkdtemp(join(home.path, 'bundle-'));
  const file = join(folder, 'support.tar.gz');
  const password = secret();
  const ran = await home.run(['support-bundle', 'web', '--output', file], {
    env: {
      CDE_URL: env.CDE_URL!,
      CDE_TOKEN: token,
      CDE_SATELLITE_TOKEN: secret(),
      CDE_NOTE: `postgres://x:${password}@db`,
      NODE_OPTIONS: '--no-warnings',
      AWS_SECRET_ACCESS_KEY: secret(),
      HARMLESS: secret(),
      // Its host does not resolve: nothing is sent there, because the server is plain HTTP.
      HTTPS_PROXY: `http://ada:${password}@proxy.example.invalid:3128`,
    },
  });
  expect(ran.code, ran.stderr).toBe(0);
  expect(ran.stdout).toContain(`Written to ${file}`);
  expect(ran.stdout).toMatch(/^workspace\/build\.log +the last 1000 lines/m);
  expect((await stat(file)).mode & 0o777).toBe(0o600);

  // By the tools that everybody has.
  execFileSync('tar', ['-xzf', file, '-C', folder]);
  const text = execFileSync('sh', ['-c', 'cat */*.* */*/*'], { cwd: folder, encoding: 'utf8' });
  expect(planted).toBeGreaterThan(50);
  for (const form of [
    mark,
    Buffer.from(mark).toString('base64').slice(0, 8),
    Buffer.from(mark).toString('hex'),
  ])
    expect(text.split('\n').filter((each) => each.includes(form))).toEqual([]);

  for (const needed of [
    `"url": "${server.url}"`,
    'npm: 200 packages',
    '"region": "[removed]"',
    'proxy.example.invalid:3128',
    'NODE_OPTIONS=--no-warnings',
    'HARMLESS\n',
    '# ssh -G workspace.cde',
  ])
    expect(text).toContain(needed);
  const [name] = execFileSync('tar', ['-tzf', file], { encoding: 'utf8' }).split('/');
  const readme = await readFile(join(folder, name!, 'README.txt'), 'utf8');
  expect(readme).toContain('Secrets were replaced by [removed]');
  // What could not be collected says why.
  expect(await readFile(join(folder, name!, 'netcheck.json'), 'utf8')).toContain('[forbidden]');

  // It never replaces a file.
  expect(await home.run(['support-bundle', '-o', file], { env })).toMatchObject({ code: 5 });
});

test('works without a server and a login', async () => {
  const file = join(await mkdtemp(join(home.path, 'alone-')), 'alone.tar.gz');
  const ran = await home.json(['support-bundle', '-o', file], {
    env: { CDE_CONFIG_DIR: join(home.path, 'none') },
  });
  expect(ran).toMatchObject({ path: file, files: expect.arrayContaining(['README.txt', 'doctor.json']) });
  const doctor = execFileSync('tar', ['-xzOf', file, '--wildcards', '*/doctor.json'], { encoding: 'utf8' });
  expect(doctor).toContain('"no-server"');
});

test('redaction keeps what is no secret', () => {
  const redact = makeRedactor(['hunter22']);
  for (const text of [
    '01990000-0000-7000-8000-000000000005',
    '2026-11-30T16:47:47.314Z',
    'https://cde.example.com:8443/workspaces/ada/web?tab=log',
    'path opened: relay https://eu.example.com 24 ms (8.2 + 16 ms)',
    '/usr/lib/x86_64-linux-gnu/openssh-client/sftp-server',
    'The token has expired.',
    '"workspace-not-running"',
  ])
    expect(redact(text)).toBe(text);
  expect(redact('curl -u ada:short1 x; nc -P bob:abc y; password: pw1')).toBe(
    `curl -u ${removed} x; nc -P ${removed} y; password: ${removed}`,
  );
  expect(redact('the password was hunter22, twice: hunter22')).toBe(
    `the password was ${removed}, twice: ${removed}`,
  );
  expect(redact(`a ${Buffer.from('hunter22').toString('hex')} b`)).toBe(`a ${removed} b`);
});
