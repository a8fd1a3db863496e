import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SettingsError } from '@cde/api/settings.ts';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { expect, test } from 'vitest';
import { describeSettings, readConfig } from './config.ts';

test('defaults: loopback, the local provider on', () => {
  expect(readConfig([], {})).toMatchObject({
    listen: { host: '127.0.0.1', port: 7080 },
    accessUrl: 'http://127.0.0.1:7080',
    localProvider: true,
    loopback: true,
    concurrency: 10,
  });
});

test('a flag wins over the environment, and an empty variable is an unset one', () => {
  expect(readConfig(['--listen', '127.0.0.1:1'], { CDE_LISTEN: '127.0.0.1:2' }).listen.port).toBe(1);
  expect(readConfig([], { CDE_LISTEN: '' }).listen.port).toBe(7080);
});

test('off loopback, the local provider is off by default', () => {
  expect(readConfig([], { CDE_LISTEN: '0.0.0.0:7080' })).toMatchObject({
    localProvider: false,
    loopback: false,
    accessUrl: 'http://localhost:7080',
  });
  expect(readConfig([], { CDE_LISTEN: '0.0.0.0:7080', CDE_LOCAL_PROVIDER: 'on' }).localProvider).toBe(true);
  expect(readConfig([], { CDE_LISTEN: '[::1]:7080' })).toMatchObject({
    listen: { host: '::1' },
    accessUrl: 'http://[::1]:7080',
    localProvider: true,
  });
});

test.each([
  [['--listen', 'nowhere'], {}, /--listen is invalid \("nowhere"\).*HOST:PORT/],
  [[], { CDE_LISTEN: '127.0.0.1:99999' }, /CDE_LISTEN.*65535/],
  [[], { DATABASE_URL: 'mysql://secret@x' }, /DATABASE_URL.*postgres/],
  [[], { CDE_CONCURRENCY: '0' }, /CDE_CONCURRENCY/],
  [[], { CDE_ACCESS_URL: 'ftp://x' }, /CDE_ACCESS_URL/],
  [[], { CDE_OIDC_ISSUER: 'https://id.example.com' }, /CDE_OIDC_CLIENT_ID/],
  [[], { CDE_PASSWORD_LOGIN: 'off' }, /no one could sign in/],
  [[], { CDE_AGENT_CA: '/nowhere.pem' }, /CDE_AGENT_CA is invalid .*the file cannot be read \(ENOENT\)/],
  [[], { CDE_AGENT_CA: '/dev/null' }, /CDE_AGENT_CA is invalid .*contains no certificate/],
  [['--nonsense'], {}, /nonsense/],
] as const)('%j %j is rejected with a message', (args, env, message) => {
  let thrown: unknown;
  try {
    readConfig([...args], env as Record<string, string>);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(SettingsError);
  expect((thrown as SettingsError).message).toMatch(message);
  expect((thrown as SettingsError).hint).not.toBe('');
  expect((thrown as SettingsError).message).not.toContain('secret');
});

test('every setting is described', () => {
  expect(describeSettings()).toMatch(/--database-url\s+DATABASE_URL/);
});

test('port host names: a wildcard, *.localhost on loopback, otherwise paths', () => {
  const host = (env: Record<string, string>) => readConfig([], { CDE_DATA_DIR: '/tmp/cde', ...env }).portHost;
  expect(host({})).toBe('.localhost');
  expect(host({ CDE_PORT_HOST: 'off' })).toBe(null);
  expect(host({ CDE_ACCESS_URL: 'https://cde.example.com' })).toBe(null);
  const access = { CDE_ACCESS_URL: 'https://cde.example.com' };
  expect(host({ ...access, CDE_PORT_HOST: '*.Dev.example.com' })).toBe('.dev.example.com');
  expect(() => host({ CDE_PORT_HOST: 'dev.example.com' })).toThrow(SettingsError);
  expect(() =>
    host({ CDE_ACCESS_URL: 'https://80--web--ada.example.com', CDE_PORT_HOST: '*.example.com' }),
  ).toThrow(/looks like a shared port/);
});

test('certificate authorities of agents are read, without what stands between them', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cde-config-'));
  const file = join(folder, 'ca.pem');
  const read = (text: string) => {
    writeFileSync(file, text);
    return readConfig([], { CDE_AGENT_CA: file }).agentCa;
  };
  const { cert } = await makeCertificate();
  const pem = cert.trim();
  expect(read(`# one\n${pem}\n# two\n${pem}\n`)).toBe(`${pem}\n${pem}\n`);
  expect(() => read(`${pem}\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`)).toThrow(
    /contains an invalid certificate/,
  );
  expect(() => read(`${pem}\n`.repeat(500))).toThrow(/agents take at most 100000/);
  rmSync(folder, { recursive: true });
});

test('an Incus server only if it is named, and over HTTPS only with a certificate', () => {
  expect(readConfig([], {}).incus).toBeNull();
  expect(readConfig([], { CDE_INCUS: 'unix:///var/lib/incus/unix.socket' }).incus?.url).toBe(
    'unix:///var/lib/incus/unix.socket',
  );
  expect(() => readConfig([], { CDE_INCUS: 'https://incus.example.com:8443' })).toThrow(/certificate/);
  expect(() => readConfig([], { CDE_INCUS: 'http://incus.example.com:8443' })).toThrow(/https:/);
});

test('a Docker engine: that of the machine on loopback only, another only over TLS or SSH', () => {
  expect(readConfig([], { DOCKER_HOST: 'tcp://127.0.0.1:2375' }).docker?.url).toBe('tcp://127.0.0.1:2375');
  const environment = { CDE_LISTEN: '0.0.0.0:7080', DOCKER_HOST: 'tcp://127.0.0.1:2375' };
  expect(readConfig([], environment).docker).toBeNull();
  expect(readConfig(['--docker', 'off'], { DOCKER_HOST: 'tcp://127.0.0.1:2375' }).docker).toBeNull();
  expect(readConfig([], { ...environment, CDE_DOCKER: 'unix:///run/engine.sock' }).docker?.url).toBe(
    'unix:///run/engine.sock',
  );
  // What the docker command uses is not an error of ours.
  expect(readConfig([], { DOCKER_HOST: 'ssh://build.example.com' }).docker).toBeNull();
  expect(() => readConfig([], { CDE_DOCKER: 'tcp://build.example.com:2375' })).toThrow(/TLS/);
  const reachable = { CDE_ACCESS_URL: 'https://cde.example.com' };
  for (const url of ['ssh://build.example.com', 'ssh://ada@[::1]:22/run/user/1000/docker.sock']) {
    expect(readConfig([], { ...reachable, CDE_DOCKER: url }).docker?.url).toBe(url);
    // Its containers cannot reach a server that listens on loopback.
    expect(() => readConfig([], { CDE_DOCKER: url })).toThrow(/cannot reach this server at http:/);
  }
  for (const url of ['ssh://-oProxyCommand=sh', 'ssh://ada:secret@build', 'http://build:2375'])
    expect(() => readConfig([], { ...reachable, CDE_DOCKER: url })).toThrow(/unix:\/\/\/PATH/);
});

test('Google Compute only if a project and region are named', () => {
  expect(readConfig([], {}).gce).toBeNull();
  expect(readConfig([], { CDE_GCE: 'acme-dev/europe-west3' }).gce).toEqual({
    project: 'acme-dev',
    region: 'europe-west3',
  });
  const endpoint = 'http://127.0.0.1:5000';
  const settings = { CDE_GCE: 'example.com:dev/us-central1', CDE_GCE_ENDPOINT: endpoint };
  expect(readConfig([], settings).gce).toEqual({
    project: 'example.com:dev',
    region: 'us-central1',
    endpoint,
  });
  for (const wrong of ['acme-dev', 'acme-dev/', 'acme-dev/europe-west3-a'])
    expect(() => readConfig([], { CDE_GCE: wrong }), wrong).toThrow(/PROJECT\/REGION/);
});

test('EC2 only if a region is named', () => {
  expect(readConfig([], {}).ec2).toBeNull();
  expect(readConfig([], { CDE_EC2: 'eu-central-1' }).ec2).toEqual({ region: 'eu-central-1' });
  const endpoint = 'http://127.0.0.1:5000';
  expect(readConfig([], { CDE_EC2: 'us-gov-west-1', CDE_EC2_ENDPOINT: endpoint }).ec2).toMatchObject({
    endpoint,
  });
  expect(() => readConfig([], { CDE_EC2: 'Frankfurt' })).toThrow(/region/);
});
