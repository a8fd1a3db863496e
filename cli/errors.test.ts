import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getUser, pollCliLogin, startCliLogin } from '@cde/api/identity.ts';
import { getTemplate } from '@cde/api/templates.ts';
import { createWorkspace, listWorkspaces } from '@cde/api/workspaces.ts';
import { beforeEach, describe, expect, test } from 'vitest';
import { exitCodeFor } from './failure/exit-codes.ts';
import { makeFakeServer, Refusal, startFakeServer } from './testing/cli.ts';
import { template, user, workspace } from './testing/objects.ts';

const { home, server, env } = await startFakeServer();

const empty = { items: [], next: null };

describe('exit codes', () => {
  test.each([
    [400, 'bad-request', 2],
    [401, 'token-expired', 4],
    [403, 'forbidden', 4],
    [404, 'workspace-not-found', 3],
    [409, 'workspace-busy', 5],
    [410, 'agent-superseded', 5],
    [413, 'payload-too-large', 1],
    [422, 'parameters-invalid', 2],
    [422, 'template-invalid', 1],
    [429, 'sign-in-throttled', 4],
    [500, 'internal', 1],
    [503, 'database-unavailable', 6],
    [0, 'server-unreachable', 6],
    [502, 'not-a-cde-server', 6],
  ])('%i %s ends with %i', (status, code, expected) => {
    expect(exitCodeFor(code, status)).toBe(expected);
  });

  test('an error is printed as a sentence with its code, and with --json as the API’s object', async () => {
    server.on(listWorkspaces, () => {
      throw new Refusal(403, {
        code: 'forbidden',
        message: 'You may not.',
        detail: 'A member.',
        hint: 'Ask.',
      });
    });
    const words = await home.run(['list'], { env });
    expect(words).toMatchObject({ code: 4, stdout: '' });
    expect(words.stderr).toBe('error: You may not. [forbidden]\n  A member.\n  → Ask.\n');
    const json = await home.run(['list', '--json'], { env });
    expect(json).toMatchObject({ code: 4, stdout: '' });
    expect(JSON.parse(json.stderr)).toEqual({
      code: 'forbidden',
      message: 'You may not.',
      detail: 'A member.',
      hint: 'Ask.',
      exitCode: 4,
    });
  });

  test('usage: unknown commands, options and values end with 2 and name the help', async () => {
    for (const words of [['lst'], ['list', '--nope'], ['create'], ['list', '--limit', 'many'], ['user']]) {
      const ran = await home.run(words);
      expect(ran, words.join(' ')).toMatchObject({ code: 2, stdout: '' });
      expect(ran.stderr).toContain('[usage]');
    }
    expect((await home.run(['lst'])).stderr).toMatch(/→ Did you mean .*\blist\b.*\?$/m);
    expect(JSON.parse((await home.run(['list', '--nope', '--json'])).stderr)).toMatchObject({
      code: 'usage',
      exitCode: 2,
    });
  });

  test('no server, no login, no answer', async () => {
    expect(await home.run(['list'])).toMatchObject({
      code: 4,
      stderr: expect.stringContaining('[no-server]'),
    });
    const unsigned = await home.run(['list'], { env: { CDE_URL: server.url } });
    expect(unsigned).toMatchObject({ code: 4, stderr: expect.stringContaining(`cde login ${server.url}`) });
    const closed = await makeFakeServer();
    await closed.close();
    const unreachable = await home.run(['list'], { env: { ...env, CDE_URL: closed.url } });
    expect(unreachable).toMatchObject({ code: 6, stderr: expect.stringContaining('[server-unreachable]') });
  });

  test('a page of another program is not accepted as a reply', async () => {
    const portal = createServer((_request, response) =>
      response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Welcome to the hotel</h1>'),
    );
    await new Promise<void>((resolve) => portal.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(portal.address() as AddressInfo).port}`;
    const ran = await home.run(['list'], { env: { ...env, CDE_URL: url } });
    portal.close();
    expect(ran).toMatchObject({ code: 6, stderr: expect.stringContaining('[not-a-cde-server]') });
  });

  test('control sequences from the server do not reach the terminal', async () => {
    server.on(listWorkspaces, () => {
      throw new Refusal(404, { code: 'not-found', message: 'a\u001b[2Jb\u0007c\u009b31md' });
    });
    expect((await home.run(['list'], { env })).stderr).toBe('error: abcd [not-found]\n');
  });
});

describe('retries', () => {
  let asked: { key: string | undefined }[];
  beforeEach(() => {
    asked = [];
  });

  test('an endless reply is abandoned with an explanation, and does not fill the memory', async () => {
    // Half a gigabyte in total. Rejected by its declared length, and by the received bytes.
    for (const headers of [{ 'content-length': String(512 * 1024 * 1024) }, {}]) {
      const { createServer } = await import('node:http');
      let sent = 0;
      const endless = createServer((_, response) => {
        response.writeHead(200, { 'content-type': 'application/json', ...headers });
        const piece = Buffer.alloc(1024 * 1024, ' ');
        const more = () => {
          while (sent < 512 && !response.destroyed) {
            sent += 1;
            if (!response.write(piece)) return void response.once('drain', more);
          }
        };
        more();
      }).listen(0, '127.0.0.1');
      await new Promise((resolve) => endless.once('listening', resolve));
      const { port } = endless.address() as { port: number };
      const env = { CDE_URL: `http://127.0.0.1:${port}`, CDE_TOKEN: 'cde_x' };
      const ran = await home.run(['list'], { env });
      expect(ran).toMatchObject({ code: 6, stderr: expect.stringContaining('[reply-too-large]') });
      expect(sent).toBeLessThan(100);
      endless.closeAllConnections();
      endless.close();
    }
  });

  test('a read is repeated when the connection is lost', async () => {
    server.on(listWorkspaces, ({ hangUp }) => {
      asked.push({ key: undefined });
      return asked.length < 3 ? hangUp() : empty;
    });
    expect(await home.json(['list'], { env })).toEqual([]);
    expect(asked).toHaveLength(3);
  });

  test('a change is repeated with the same Idempotency-Key', async () => {
    server.on(getTemplate, () => template());
    server.on(createWorkspace, ({ headers, hangUp }) => {
      asked.push({ key: headers['idempotency-key'] as string });
      return asked.length < 2 ? hangUp() : workspace();
    });
    const made = await home.json(['create', 'web', '--template', 'local', '--no-wait'], { env });
    expect(made.name).toBe('web');
    expect(asked).toHaveLength(2);
    expect(asked[0]!.key).toMatch(/^[0-9a-f-]{36}$/);
    expect(asked[1]!.key).toBe(asked[0]!.key);
  });

  test('Retry-After is respected for a 503 and for a request in progress', async () => {
    const moments: number[] = [];
    server.on(getUser, () => {
      moments.push(performance.now());
      if (moments.length === 1)
        throw new Refusal(503, { code: 'server-busy', message: 'Busy.' }, { 'retry-after': '1' });
      if (moments.length === 2)
        throw new Refusal(409, { code: 'idempotency-in-progress', message: 'Wait.' }, { 'retry-after': '0' });
      return user();
    });
    expect((await home.json(['whoami'], { env })).username).toBe('ada');
    expect(moments).toHaveLength(3);
    expect(moments[1]! - moments[0]!).toBeGreaterThanOrEqual(990);
  });

  test('any other conflict is reported at once', async () => {
    let times = 0;
    server.on(getUser, () => {
      times += 1;
      throw new Refusal(409, { code: 'workspace-busy', message: 'Busy.' }, { 'retry-after': '2' });
    });
    expect((await home.run(['whoami'], { env })).code).toBe(5);
    expect(times).toBe(1);
  });
});

describe('login through the browser', () => {
  test('prints address and code, waits, and keeps the token for its owner alone', async () => {
    let polls = 0;
    server.on(startCliLogin, ({ body }) => {
      expect(body.hostname).toBeTruthy();
      return {
        deviceCode: 'device',
        userCode: 'ABCD-EFGH',
        url: `${server.url}/cli?code=ABCD-EFGH`,
        expiresAt: new Date(Date.now() + 60_000).toISOString(),
        pollEveryMs: 20,
      };
    });
    server.on(pollCliLogin, ({ hangUp }) => {
      polls += 1;
      if (polls === 1) return { status: 'pending', token: null, username: null };
      // The server restarts meanwhile.
      if (polls === 2) return hangUp();
      return { status: 'approved', token: 'cde_secret', username: 'ada' };
    });
    server.on(getUser, ({ headers }) => {
      expect(headers.authorization).toBe('Bearer cde_secret');
      return user();
    });
    const ran = await home.run(['login', server.url]);
    expect(ran).toMatchObject({ code: 0, stdout: `Signed in to ${server.url} as ada (member).\n` });
    expect(ran.stderr).toContain('ABCD-EFGH');
    expect(ran.stdout + ran.stderr).not.toContain('cde_secret');
    const file = `${home.path}/.config/cde/config.json`;
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({
      current: server.url,
      servers: { [server.url]: { token: 'cde_secret', username: 'ada', source: 'browser' } },
    });
    expect((await home.json(['whoami'])).username).toBe('ada');
    // Signed out, the token is gone from the file.
    expect((await home.run(['logout'])).code).toBe(0);
    expect(JSON.parse(await readFile(file, 'utf8'))).toEqual({ version: 1, current: null, servers: {} });
  });

  test('a token can be read from stdin, and is not echoed', async () => {
    server.on(getUser, () => user());
    const ran = await home.run(['login', server.url, '--token'], { input: 'cde_given\n' });
    expect(ran.code).toBe(0);
    expect(ran.stdout + ran.stderr).not.toContain('cde_given');
  });

  test('an invalid config file is reported', async () => {
    await mkdir(`${home.path}/broken`, { recursive: true });
    await writeFile(`${home.path}/broken/config.json`, '{');
    const ran = await home.run(['list'], { env: { CDE_CONFIG_DIR: `${home.path}/broken` } });
    expect(ran).toMatchObject({ code: 1, stderr: expect.stringContaining('[config-invalid]') });
  });
});

test('a hostile server can make the browser open only web pages', async () => {
  for (const url of ['file:///etc/passwd', 'javascript:alert(1)', '--version', 'vscode://x']) {
    server.on(startCliLogin, () => ({
      deviceCode: 'd',
      userCode: 'AAAA-BBBB',
      url,
      expiresAt: '2100-01-01T00:00:00.000Z',
      pollEveryMs: 10,
    }));
    const ran = await home.run(['login', server.url, '--force']);
    expect(ran).toMatchObject({ code: 6, stderr: expect.stringContaining('[not-a-cde-server]') });
  }
});
