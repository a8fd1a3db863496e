import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createServer, type Server as TlsServer } from 'node:tls';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { launch } from '../browser/browser.ts';
import { run } from '../cluster/machine.ts';
import { type Api, makeApi } from '../kit/api.ts';
import { freePort } from '../kit/free-port.ts';
import { type Machine, makeMachine, type Server } from '../kit/machine.ts';
import { type Program, type ProgramName, startProgram } from './programs.ts';

/**
 * Stock frameworks in a workspace, opened in a real browser through a shared port: https, under a name that none of them
 * knows. Each shows its page, takes a POST from it, opens its WebSocket, and redirects to its own absolute address.
 * Each refuses the same WebSocket or POST from a page elsewhere.
 */
let machine: Machine;
let server: Server;
let front: TlsServer;
let api: Api;
let browser: Browser;
let context: BrowserContext;
const domain = 'ports.example.test';
let tlsPort: number;

beforeAll(async () => {
  machine = await makeMachine();
  const certificate = makeCertificate(machine.folder);
  tlsPort = await freePort();
  const accessUrl = `https://127.0.0.1:${tlsPort}`;
  const { hostname, port } = new URL(`http://${machine.env.CDE_LISTEN}`);
  front = createServer(certificate, (socket) => {
    const behind = connect(Number(port), hostname);
    socket.on('error', () => behind.destroy()).pipe(behind);
    behind.on('error', () => socket.destroy()).pipe(socket);
  });
  front.listen(tlsPort, '127.0.0.1');
  machine.env.NODE_EXTRA_CA_CERTS = join(machine.folder, 'certificate.pem');
  server = await machine.start({
    CDE_ACCESS_URL: accessUrl,
    CDE_REPLICA_URL: `http://${machine.env.CDE_LISTEN}`,
    CDE_PORT_HOST: `*.${domain}`,
    CDE_LOCAL_PROVIDER: 'on',
    // The programs run beside the workspace, as its own user.
    CDE_ISOLATION: 'none',
  });
  api = await makeApi(machine, server.url);
  browser = await launch([`--host-resolver-rules=MAP *.${domain} 127.0.0.1`]);
  context = await browser.newContext({ ignoreHTTPSErrors: true });
  const { body } = await api('POST', '/api/v1/auth/one-time-links');
  const page = await context.newPage();
  await page.goto(body.url);
  await page.waitForURL(/\/workspaces/);
  await page.close();
});
afterAll(async () => {
  await browser?.close();
  front?.close();
  await machine?.remove();
});

function makeCertificate(folder: string) {
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')];
  const names = `subjectAltName=IP:127.0.0.1,DNS:*.${domain}`;
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  run('openssl', [
    ...request,
    '-keyout',
    key,
    '-out',
    cert,
    '-days',
    '2',
    '-subj',
    '/CN=test',
    '-addext',
    names,
  ]);
  return { key: readFileSync(key), cert: readFileSync(cert) };
}

const publicOrigin = ({ port }: Program) => `https://${port}--hello--owner.${domain}:${tlsPort}`;

/** One framework: started, shared with its owner, opened. */
function framework(
  name: ProgramName,
  define: (opened: { page: () => Page; program: () => Program; at: (path: string) => string }) => void,
) {
  describe(name, () => {
    let program: Program;
    let page: Page;
    beforeAll(async () => {
      program = await startProgram(name, machine.folder);
      const shared = await api('PUT', `/api/v1/workspaces/hello/ports/${program.port}`, { level: 'owner' });
      expect(shared.status).toBe(200);
      page = await context.newPage();
      page.setDefaultTimeout(60_000);
      // By way of the dashboard, whose page sends the browser back.
      await page.goto(publicOrigin(program));
      await page.waitForURL((url) => url.origin === publicOrigin(program));
    });
    afterAll(async () => {
      await page?.close();
      await program?.stop();
    });
    define({
      page: () => page,
      program: () => program,
      at: (path) => publicOrigin(program) + path,
    });
  });
}

/** Sends a POST from the page and tells its status. */
const post = (page: Page, path: string, headers: Record<string, string> = {}) =>
  page.evaluate(async ([path, headers]) => (await fetch(path, { method: 'POST', headers })).status, [
    path,
    headers,
  ] as const);

/** What becomes of a WebSocket that the page opens: its first message, or how it failed. */
const openSocket = (page: Page, path: string, protocols: string[] = []) =>
  page.evaluate(
    ([path, protocols]) =>
      new Promise<string>((resolve) => {
        const socket = new WebSocket(path, protocols);
        socket.onmessage = ({ data }) => resolve(String(data));
        socket.onclose = ({ code }) => resolve(`closed ${code}`);
      }),
    [path, protocols] as const,
  );

/** What becomes of the same WebSocket when a page of another origin opens it. */
async function foreignSocket({ port }: Program, path: string): Promise<string> {
  // Shared with everybody, so that the program decides and not the proxy's own check of the cookie.
  const url = `/api/v1/workspaces/hello/ports/${port}`;
  expect((await api('PUT', url, { level: 'public' })).status).toBe(200);
  const stranger = await browser.newContext({ ignoreHTTPSErrors: true });
  try {
    const page = await stranger.newPage();
    await page.goto('data:text/html,<h1>elsewhere</h1>');
    return await openSocket(page, `wss://${port}--hello--owner.${domain}:${tlsPort}${path}`);
  } finally {
    await stranger.close();
    await api('PUT', url, { level: 'owner' });
  }
}

framework('code-server', ({ page, program, at }) => {
  test('page, redirect and POST: its sign-in', async () => {
    await page().goto(at('/'));
    expect(page().url()).toContain(at('/login'));
    await page().locator('input[type=password]').fill('secret');
    await page().locator('input[type=submit]').click();
    await page().waitForURL((url) => url.pathname === '/');
    expect(new URL(page().url()).origin).toBe(publicOrigin(program()));
  });
  test('WebSocket: the workbench shows the files of the workspace', async () => {
    await page().getByText('opened-by-vscode.txt').first().waitFor();
  });
});

framework('jupyter', ({ page, program, at }) => {
  test('page and redirect', async () => {
    await page().goto(at('/?token=secret'));
    await page().waitForURL(/\/lab/);
    await page().locator('.jp-Launcher').first().waitFor();
    expect(new URL(page().url()).origin).toBe(publicOrigin(program()));
  });
  test('POST and WebSocket: a terminal', async () => {
    const name = await page().evaluate(async () => {
      const token = /_xsrf=([^;]+)/.exec(document.cookie)?.[1] ?? '';
      const reply = await fetch('/api/terminals', { method: 'POST', headers: { 'x-xsrftoken': token } });
      return reply.ok ? ((await reply.json()) as { name: string }).name : `refused ${reply.status}`;
    });
    expect(await openSocket(page(), `/terminals/websocket/${name}`)).toContain('setup');
  });
  test('a page elsewhere is refused', async () => {
    expect(await foreignSocket(program(), '/api/events/subscribe?token=secret')).toBe('closed 1006');
  });
});

framework('django', ({ page, program, at }) => {
  test('page and redirect', async () => {
    await page().goto(at('/admin/'));
    expect(page().url()).toBe(at('/admin/login/?next=/admin/'));
  });
  test('POST: the sign-in of its admin pages', async () => {
    await page().locator('[name=username]').fill('a');
    await page().locator('[name=password]').fill('b');
    await page().locator('[type=submit]').click();
    await page().getByText('Please enter the correct username').waitFor();
  });
  test('WebSocket, and none for a page elsewhere', async () => {
    expect(await openSocket(page(), '/live')).toBe('welcome');
    expect(await foreignSocket(program(), '/live')).toBe('closed 1006');
  });
});

framework('rails', ({ page, program, at }) => {
  test('page, POST and redirect', async () => {
    await page().goto(at('/'));
    await page().getByRole('button', { name: 'Send' }).click();
    await page().getByText('posted').waitFor();
    await page().goto(at('/away'));
    expect(page().url()).toBe(at('/?redirected=1'));
  });
  test('WebSocket: Action Cable, and none for a page elsewhere', async () => {
    const path = '/cable';
    const open = (page: Page) => openSocket(page, path, ['actioncable-v1-json']);
    expect(await open(page())).toContain('welcome');
    expect(await foreignSocket(program(), path)).toBe('closed 1006');
  });
});

framework('vite', ({ page, program, at }) => {
  test('page, WebSocket: a change of a file is shown', async () => {
    await page().goto(at('/'));
    await page().getByText('from a module').waitFor();
    writeFileSync(join(program().folder, 'main.js'), "document.querySelector('p').textContent = 'changed';");
    await page().getByText('changed').waitFor();
  });
  test('POST and redirect', async () => {
    expect(await post(page(), '/post')).toBe(200);
    await page().goto(at('/away'));
    expect(page().url()).toBe(at('/?redirected'));
  });
});

framework('next', ({ page, at }) => {
  test('page and POST: a server action', async () => {
    const sockets: string[] = [];
    page().on('websocket', (socket) =>
      socket.once('framereceived', () => sockets.push(new URL(socket.url()).pathname)),
    );
    await page().goto(at('/'));
    await page().getByRole('button', { name: 'Send' }).click();
    await page().getByText('posted').waitFor();
    await expect.poll(() => sockets.join(), { timeout: 60_000 }).toContain('/_next/');
  });
  test('redirect', async () => {
    await page().goto(at('/away'));
    expect(page().url()).toBe(at('/?redirected'));
  });
});

framework('webpack-dev-server', ({ page, program, at }) => {
  test('page, WebSocket: a change of a file is shown', async () => {
    await page().goto(at('/'));
    await page().getByText('from a bundle').waitFor();
    writeFileSync(join(program().folder, 'main.js'), "document.querySelector('p').textContent = 'changed';");
    await page().getByText('changed').waitFor();
  });
  test('POST and redirect', async () => {
    expect(await post(page(), '/post')).toBe(200);
    await page().goto(at('/away'));
    expect(page().url()).toBe(at('/?redirected'));
  });
});

framework('express', ({ page, program, at }) => {
  test('page, POST and redirect, with trust proxy', async () => {
    await page().goto(at('/'));
    expect(await post(page(), '/post')).toBe(200);
    await page().goto(at('/away'));
    expect(page().url()).toBe(at('/?redirected'));
  });
  test('WebSocket, and none for a page elsewhere', async () => {
    expect(await openSocket(page(), '/live')).toBe('welcome');
    expect(await foreignSocket(program(), '/live')).toBe('closed 1006');
  });
});
