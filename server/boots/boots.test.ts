import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../tests/kit/until.ts';
import { readConfig } from '../config.ts';
import { type ControlPlane, startControlPlane } from '../control-plane.ts';
import { makeLog } from '../log.ts';
import { bootSecret } from '../providers/vm/boot-secret.ts';
import { addUser, makeTestDatabase, type TestDatabase, type TestUser } from '../testing.ts';
import { makeScriptedProvider, type ScriptedProvider } from '../workspaces/scripted-provider.ts';

let database: TestDatabase;
let server: ControlPlane;
let provider: ScriptedProvider;
let folder: string;
let ada: TestUser;

beforeAll(async () => {
  database = await makeTestDatabase();
  folder = await mkdtemp(join(tmpdir(), 'cde-data-'));
  provider = makeScriptedProvider();
  server = await startControlPlane({
    config: readConfig([], { CDE_DATA_DIR: folder, CDE_LISTEN: '127.0.0.1:0' }),
    database,
    log: makeLog('silent'),
    providers: new Map([['local', provider]]),
    checkReplies: true,
  });
  ada = await addUser(database, 'ada');
  const admin = await addUser(database, 'adm', 'owner');
  const files = { 'template.yaml': 'name: plain\nprovider: local\n' };
  await call(admin.token, '/api/v1/templates', { files });
});
afterAll(async () => {
  await server?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

async function call(token: string | null, path: string, body?: unknown) {
  const reply = await fetch(server.url + path, {
    method: body === undefined ? 'GET' : 'POST',
    headers: {
      ...(token && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: reply.status, reply };
}
const boot = async (build: string, secret: string) => {
  const { status, reply } = await call(null, '/api/v1/agent/boot', { build, secret });
  return { status, body: await reply.json() };
};

/** The program is compressed at the first request, which takes a minute on a busy machine. */
const compressing = { timeout: 300_000 };

test(
  'a machine exchanges its secret for the token of its agent, until that has registered',
  compressing,
  async () => {
    await call(ada.token, '/api/v1/workspaces', { name: 'one', template: 'plain' });
    const { buildId, token } = await until(
      async () => provider.launches[0]!,
      (launch) => launch !== undefined,
    );
    const secret = bootSecret(token);
    expect(await boot(buildId, bootSecret('another'))).toMatchObject({
      status: 409,
      body: { code: 'boot-rejected' },
    });
    const other = '00000000-0000-7000-8000-000000000000';
    expect(await boot(other, secret)).toMatchObject({ status: 409, body: { code: 'boot-rejected' } });
    expect(await boot(buildId, secret)).toMatchObject({ status: 200, body: { token } });
    // A reply can be lost.
    const { body } = await boot(buildId, secret);

    const path = (version: string) => `/api/v1/agent/program/${version}`;
    expect((await call(null, path(body.version))).status).toBe(401);
    expect((await call(ada.token, path(body.version))).status).toBe(403);
    expect((await call(token, path('0'))).status).toBe(404);
    const program = await call(token, path(body.version));
    expect(program.status).toBe(200);
    const bytes = Buffer.from(await program.reply.arrayBuffer());
    expect(bytes.length).toBe(Number(program.reply.headers.get('content-length')));
    expect(gunzipSync(bytes).includes('enter.mjs')).toBe(true);

    const registered = await call(token, '/api/v1/agent/register', {
      tlsPublicKey: 'A'.repeat(43),
      sshHostKey: `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA${'A'.repeat(42)}`,
      version: '1',
      hostname: 'here',
    });
    expect(registered.status).toBe(200);
    expect(await boot(buildId, secret)).toMatchObject({ status: 409, body: { code: 'boot-rejected' } });
  },
);

test('a secret of a build that was replaced is of no use', async () => {
  provider.launches.length = 0;
  await call(ada.token, '/api/v1/workspaces', { name: 'two', template: 'plain' });
  const { buildId, token } = await until(
    async () => provider.launches[0]!,
    (launch) => launch !== undefined,
  );
  await call(ada.token, '/api/v1/workspaces/two/stop', {});
  const after = await until(
    () => boot(buildId, bootSecret(token)),
    ({ status }) => status !== 200,
  );
  expect(after).toMatchObject({ status: 409, body: { code: 'boot-rejected' } });
});
