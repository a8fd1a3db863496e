import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sessionKeyHeader } from '@cde/api/identity.ts';
import { startEmbedded } from '@cde/server/database/embedded.ts';
import { openDatabase } from '@cde/server/database/pool.ts';
import { builds } from '@cde/server/database/schema.ts';
import { hashSecret, makeSecret } from '@cde/server/identity/secrets.ts';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Api, makeApi } from '../kit/api.ts';
import { type Machine, makeMachine, type Server } from '../kit/machine.ts';
import { schemathesis } from './tool.ts';

/** Valid and invalid requests generated from the API's description: no response is a 5xx or undocumented. */
let program: string;
let machine: Machine;
let server: Server;
let api: Api & { token: string };

beforeAll(async () => {
  program = await schemathesis();
  machine = await makeMachine();
  server = await machine.start();
  api = await makeApi(machine, server.url);
  // Something to find, so that not every response is a 404.
  const folder = fileURLToPath(new URL('../../templates/local/', import.meta.url));
  const files = Object.fromEntries(
    await Promise.all(
      (await readdir(folder, { withFileTypes: true }))
        .filter((entry) => entry.isFile())
        .map(async ({ name }) => [name, await readFile(join(folder, name), 'utf8')] as const),
    ),
  );
  await api('POST', '/api/v1/templates', { files });
});
afterAll(() => machine?.remove());

const checks = [
  'not_a_server_error',
  'status_code_conformance',
  'content_type_conformance',
  'response_schema_conformance',
];
/** Sign-out would revoke the token in use. The others redirect by design. */
const excluded = ['/api/v1/auth/sign-out', '/api/v1/auth/oidc/start', '/api/v1/auth/oidc/callback'];

/** `only`: the paths to request; default: all but those of agents and satellites, which reject every user's token. */
function attack(token: string, only?: string): Promise<{ code: number; output: string }> {
  const options = [
    ['--checks', checks.join(',')],
    ['--header', `Authorization: Bearer ${token}`],
    ['--phases', 'examples,coverage,fuzzing'],
    // Limits the suite to about three minutes on a machine of any speed.
    ['--max-time', '60'],
    // Python 3.11 sometimes fails when several threads compile.
    ['--workers', '1'],
    // Other suites run beside this one.
    ['--request-timeout', '120'],
    ['--warnings', 'off'],
    ...excluded.map((path) => ['--exclude-path', path]),
    only ? ['--include-path-regex', only] : ['--exclude-path-regex', '^/api/v1/(agent|satellite)/'],
  ];
  return new Promise((resolve) => {
    execFile(
      program,
      ['run', `${server.url}/api/v1/openapi.json`, ...options.flat(), '--continue-on-failure'],
      {
        env: {
          ...process.env,
          NO_COLOR: '1',
          HYPOTHESIS_STORAGE_DIRECTORY: join(machine.folder, 'hypothesis'),
        },
        cwd: machine.folder,
        maxBuffer: 64 * 1024 * 1024,
      },
      (error, stdout, stderr) =>
        resolve({
          code: error ? Number((error as NodeJS.ErrnoException).code ?? 1) : 0,
          output: stdout + stderr,
        }),
    );
  });
}

test('with the token of an owner', async () => {
  const { code, output } = await attack(api.token);
  expect(code, output).toBe(0);
  expect(output).toMatch(/generated/);
});

test('with the token of a member', async () => {
  await api('POST', '/api/v1/users', { username: 'ada', password: 'a password of ada' });
  const signedIn = await fetch(`${server.url}/api/v1/auth/sign-in`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', origin: server.url },
    body: JSON.stringify({ username: 'ada', password: 'a password of ada' }),
  });
  expect(signedIn.status).toBe(200);
  const { code, output } = await attack(await memberToken(signedIn));
  expect(code, output).toBe(0);
});

test('with the token of a satellite', async () => {
  const added = await machine.cde('satellite', 'add', 'east');
  expect(added.code, added.stderr).toBe(0);
  const { code, output } = await attack(added.stdout.trim(), '^/api/v1/satellite/');
  expect(code, output).toBe(0);
  expect(output).toMatch(/generated/);
});

test('with the token of an agent', async () => {
  const { body } = await api('GET', '/api/v1/workspaces/hello');
  // The agent alone has its token, so its build gets another.
  const database = openDatabase((await startEmbedded(machine.env.CDE_DATA_DIR!)).url);
  const token = makeSecret('cde_agent');
  await database.db
    .update(builds)
    .set({ agentTokenHash: hashSecret(token) })
    .where(eq(builds.id, body.latestBuild.id));
  await database.close();
  const { code, output } = await attack(token, '^/api/v1/agent/');
  expect(code, output).toBe(0);
  expect(output).toMatch(/generated/);
});

async function memberToken(signedIn: Response): Promise<string> {
  const { sessionKey } = (await signedIn.json()) as { sessionKey: string };
  const cookie = signedIn.headers
    .getSetCookie()
    .map((line) => line.split(';')[0])
    .join('; ');
  const made = await fetch(`${server.url}/api/v1/tokens`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      origin: server.url,
      cookie,
      [sessionKeyHeader]: sessionKey,
    },
    body: JSON.stringify({ name: 'test' }),
  });
  expect(made.status).toBe(201);
  return ((await made.json()) as { token: string }).token;
}
