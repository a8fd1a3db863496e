import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Workspace } from '@cde/api/workspaces.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { patienceMs } from '../kit/until.ts';
import { starterTemplate } from './server.ts';
import { gone, setStage, visible } from './stage.ts';

/** What a page of a workspace can access in a real browser, and what it cannot. */
const html =
  '<!doctype html><title>program</title><h1>A program</h1><pre id="found"></pre><script type="module" src="app.js"></script>';

/** Tries everything that it must not access, and reports the results. `DASHBOARD` is the dashboard's address. */
const script = `
import { greeting } from './greeting.js';
const dashboard = 'DASHBOARD';
const attempt = async (what) => { try { return await what(); } catch (error) { return 'refused: ' + error.name; } };
const found = {
  greeting,
  origin: self.origin,
  cookies: await attempt(() => { document.cookie = 'mine=1'; return document.cookie; }),
  storage: await attempt(() => { localStorage.setItem('a', 'b'); return localStorage.getItem('a'); }),
  own: await attempt(async () => (await fetch('data.json')).json()),
  posted: await attempt(async () => (await fetch('echo', { method: 'PUT', body: 'sent', headers: { 'x-a': 'b' } })).text()),
  me: await attempt(async () => (await fetch(dashboard + '/api/v1/users/me', { credentials: 'include' })).status),
  link: await attempt(async () => (await fetch(dashboard + '/api/v1/auth/one-time-links', { method: 'POST', credentials: 'include' })).status),
  worker: await attempt(async () => { await navigator.serviceWorker.register('sw.js'); return 'registered'; }),
  opener: String(window.opener),
  socket: await attempt(() => new Promise((resolve, reject) => {
    const socket = new WebSocket(new URL('live', document.baseURI).href.replace('http', 'ws'));
    socket.onmessage = ({ data }) => resolve(data);
    socket.onerror = () => reject(new Error('socket'));
  })),
};
document.querySelector('#found').textContent = JSON.stringify(found);
`;

async function makeProgram(dashboard: string) {
  const cookies: (string | undefined)[] = [];
  const files: Record<string, [string, string]> = {
    '/': ['text/html', html],
    '/app.js': ['text/javascript', script.replace('DASHBOARD', dashboard)],
    '/greeting.js': ['text/javascript', "export const greeting = 'hello';"],
    '/data.json': ['application/json', '{"own":true}'],
    '/sw.js': ['text/javascript', ''],
  };
  const http: Server = createServer((request, response) => {
    cookies.push(request.headers.cookie);
    if (request.url === '/echo') return void request.pipe(response);
    const [type, text] = files[request.url!] ?? ['text/plain', 'nothing'];
    response.setHeader('content-type', type);
    response.end(text);
  });
  const sockets = new WebSocketServer({ server: http });
  sockets.on('connection', (socket) => socket.send('welcome'));
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  return {
    port: (http.address() as AddressInfo).port,
    cookies,
    close() {
      for (const socket of sockets.clients) socket.terminate();
      http.closeAllConnections();
      http.close();
    },
  };
}

async function setWorkspace(settings: Record<string, string>) {
  const stage = await setStage({ CDE_ISOLATION: 'none', ...settings });
  const { page, api, server } = stage;
  await page.goto(server.link);
  await page.waitForURL(/\/workspaces/);
  await api('POST', '/api/v1/templates', { files: starterTemplate() });
  const workspace = await api<Workspace>('POST', '/api/v1/workspaces', { name: 'web', template: 'local' });
  const { owner } = workspace;
  await page.goto(`${server.url}/workspaces/${owner}/web`);
  await visible(page.getByRole('link', { name: 'Terminal' }));
  return { stage, owner, program: await makeProgram(server.url) };
}

/** Shares the port on the workspace's page and opens it there. */
async function open({ stage, program }: Awaited<ReturnType<typeof setWorkspace>>) {
  const { page, context } = stage;
  await page.getByLabel('Another port').fill(String(program.port));
  await page.getByRole('button', { name: 'Share with me' }).click();
  const link = page.getByRole('link', { name: String(program.port) });
  await visible(link);
  const opened = context.waitForEvent('page');
  await link.click();
  const tab = await opened;
  await visible(tab.getByRole('heading', { name: 'A program' }));
  const text = tab.locator('#found');
  await expect.poll(() => text.innerText()).not.toBe('');
  return { tab, found: JSON.parse(await text.innerText()) };
}

describe('by name', () => {
  let set: Awaited<ReturnType<typeof setWorkspace>>;
  beforeAll(async () => {
    set = await setWorkspace({});
  });
  afterAll(async () => {
    set?.program.close();
    await set?.stage.close();
  });

  test("a program has its own name, storage and cookies, and none of the dashboard's", async () => {
    const { tab, found } = await open(set);
    expect(new URL(tab.url()).hostname).toBe(`${set.program.port}--web--${set.owner}.localhost`);
    expect(found).toMatchObject({
      greeting: 'hello',
      cookies: 'mine=1',
      storage: 'b',
      own: { own: true },
      posted: 'sent',
      me: 'refused: TypeError',
      link: 'refused: TypeError',
      opener: 'null',
      socket: 'welcome',
    });
    expect(set.program.cookies.join()).not.toContain('cde_');
    await tab.close();
  });

  test('a program on another port of the host receives the cookie and cannot use it', async () => {
    const { context, server } = set.stage;
    const tab = await context.newPage();
    await tab.goto(`http://127.0.0.1:${set.program.port}/`);
    const stolen = set.program.cookies.findLast((cookie) => cookie?.includes('cde_session='))!;
    expect(stolen).toContain('cde_session=');
    for (const [method, path] of [
      ['POST', '/api/v1/tokens'],
      ['GET', '/api/v1/users/me'],
    ]) {
      const reply = await fetch(`${server.url}${path}`, {
        method: method!,
        headers: { cookie: stolen, origin: server.url, 'content-type': 'application/json' },
        ...(method === 'POST' && { body: '{"name":"stolen"}' }),
      });
      expect(reply.status).toBe(401);
    }
    // Its page can neither read the dashboard's storage nor act through the browser.
    await expect.poll(() => tab.locator('#found').innerText()).not.toBe('');
    const found = JSON.parse(await tab.locator('#found').innerText());
    expect(await tab.evaluate(() => localStorage.getItem('cde-session-key'))).toBeNull();
    expect(found).toMatchObject({ me: 'refused: TypeError', link: 'refused: TypeError' });
    await tab.close();
    set.stage.watched.faults.splice(0);
    set.program.cookies.splice(0);
  });

  test('a visitor who is not signed in signs in and returns', async () => {
    const { browser, server } = set.stage;
    const stranger = await browser.newContext();
    stranger.setDefaultTimeout(patienceMs);
    const page = await stranger.newPage();
    await page.goto(`http://${set.program.port}--web--${set.owner}.localhost:${new URL(server.url).port}/`);
    await visible(page.getByRole('heading', { name: 'Sign in' }));
    expect(page.url()).toContain('/sign-in?next=');
    const { url } = await set.stage.api<{ url: string }>('POST', '/api/v1/auth/one-time-links');
    const next = new URL(page.url()).search;
    await page.goto('about:blank');
    await page.goto(`${server.url}/sign-in${next}${new URL(url).hash}`);
    await visible(page.getByRole('heading', { name: 'A program' }));
    await stranger.close();
  });

  test('the level is changed on the page of the workspace; "anyone" needs a confirmation', async () => {
    const { page } = set.stage;
    const level = page.getByLabel(`Share port ${set.program.port} with`);
    await level.selectOption('signed-in');
    await visible(page.getByText(/Shared port \d+ with everyone signed in/));
    await level.selectOption('public');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await expect.poll(() => level.inputValue()).toBe('signed-in');
    await level.selectOption('');
    await visible(page.getByText(/Stopped sharing port/));
  });

  test('a terminal survives a reload and a restart of the server, and can have several viewers', async () => {
    const { page, context, server, watched } = set.stage;
    await page.goto(`${server.url}/workspaces/${set.owner}/web/terminal`);
    const shows = (of: typeof page, text: string | RegExp) =>
      expect.poll(() => of.locator('.xterm-rows').innerText()).toMatch(text);
    // Without isolation the shell runs as the server's user, possibly root.
    await shows(page, /[$#]/);
    await page.keyboard.type('kept=yes; echo before-$((1+1))\n');
    await shows(page, 'before-2');
    await page.reload();
    await shows(page, 'before-2');
    await page.locator('.xterm').click();
    await page.keyboard.type('echo $kept-again\n');
    await shows(page, 'yes-again');

    const other = await context.newPage();
    await other.goto(page.url());
    await shows(other, 'yes-again');
    await page.keyboard.type('echo both-$((2+2))\n');
    await Promise.all([shows(page, 'both-4'), shows(other, 'both-4')]);
    await other.close();

    await server.kill();
    await visible(page.getByText('Connecting again…'));
    await server.restart();
    await gone(page.getByText('Connecting again…'));
    await shows(page, 'both-4');
    await page.locator('.xterm').click();
    await page.keyboard.type('echo $kept-after\n');
    await shows(page, 'yes-after');
    watched.faults.splice(0);
  });
});

describe('by path', () => {
  let set: Awaited<ReturnType<typeof setWorkspace>>;
  beforeAll(async () => {
    set = await setWorkspace({ CDE_PORT_HOST: 'off' });
  });
  afterAll(async () => {
    set?.program.close();
    await set?.stage.close();
  });

  test('a program runs in a sandbox with its own files and nothing else', async () => {
    const { tab, found } = await open(set);
    expect(new URL(tab.url()).origin).toBe(set.stage.server.url);
    expect(found).toMatchObject({
      greeting: 'hello',
      origin: 'null',
      cookies: 'refused: SecurityError',
      storage: 'refused: SecurityError',
      own: { own: true },
      posted: 'sent',
      me: 'refused: TypeError',
      link: 'refused: TypeError',
      opener: 'null',
      socket: 'welcome',
    });
    expect(found.worker).toContain('refused');
    expect(set.program.cookies.every((cookie) => cookie === undefined)).toBe(true);
    await tab.close();
  });
});
