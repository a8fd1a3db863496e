import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { TerminalRoutes } from '@cde/api/satellite-terminals.ts';
import type { Satellite } from '@cde/api/satellites.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { compileCache } from '../kit/compile-cache.ts';
import { freePort } from '../kit/free-port.ts';
import { until } from '../kit/until.ts';
import { picture } from './pictures.ts';
import { starterTemplate } from './server.ts';
import { gone, type Stage, setStage, visible } from './stage.ts';

/** A terminal of the dashboard through a satellite, in a real browser. The server is made to look farther than it is. */
const main = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'satellite', 'main.ts');
/** More than a busy machine adds to the other path. */
const serverProbeMs = 250;

let stage: Stage;
let token = '';
let url = '';
let child: ChildProcess;
let owner = '';

async function start(): Promise<void> {
  child = spawn(
    process.execPath,
    [main, '--server', stage.server.url, '--listen', new URL(url).host, '--log-level', 'silent'],
    { env: { PATH: process.env.PATH, ...compileCache, CDE_SATELLITE_TOKEN: token }, stdio: 'ignore' },
  );
  await until(
    async () => (await fetch(`${url}/readyz`).catch(() => null))?.status,
    (status) => status === 200,
  );
}
const terminal = () => `${stage.server.url}/workspaces/${owner}/web/terminal`;
const shows = (text: string) =>
  expect.poll(() => stage.page.locator('.xterm-rows').innerText()).toContain(text);

beforeAll(async () => {
  url = `http://127.0.0.1:${await freePort()}`;
  stage = await setStage();
  const { page, server, api } = stage;
  await page.goto(server.link);
  await page.waitForURL(/\/workspaces/);
  token = (await api<{ token: string }>('POST', '/api/v1/satellites', { name: 'tokyo', region: 'ap' })).token;
  await start();
});
afterAll(async () => {
  child?.kill('SIGKILL');
  await stage?.close();
});

test('an owner allows a satellite to serve browsers', async () => {
  const { page, server, api } = stage;
  await page.goto(`${server.url}/satellites`);
  await page.getByRole('button', { name: 'Actions for tokyo' }).click();
  await page.getByRole('menuitem', { name: 'Browsers…' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Serve terminals and ports to browsers').check();
  await visible(dialog.getByText(/can then read the traffic/));
  await dialog.getByLabel('Wildcard name').fill('tokyo.example.com');
  await dialog.getByRole('button', { name: 'Save' }).click();
  await visible(dialog.locator('.field-error'));
  await picture(page, 'satellite-browsers');
  await dialog.getByLabel('Wildcard name').fill('');
  await dialog.getByRole('button', { name: 'Save' }).click();
  await gone(dialog);
  await visible(page.getByText('Serves terminals to browsers'));
  expect((await api<Satellite>('GET', '/api/v1/satellites/tokyo')).web).toEqual({ portHost: null });
  expect(stage.watched.faults).toEqual([]);
});

test('a terminal goes over it where it is nearer, and over the server when it is gone', async () => {
  const { page, context, api, server, watched } = stage;
  await api('POST', '/api/v1/templates', { files: starterTemplate() });
  const made = await api<Workspace>('POST', '/api/v1/workspaces', { name: 'web', template: 'local' });
  ({ owner } = made);
  // Its agent has measured, and the satellite knows that it is allowed to.
  await expect
    .poll(
      async () =>
        (await api<TerminalRoutes>('POST', `/api/v1/workspaces/${made.id}/terminal-ways`)).satellites[0]
          ?.agentRttMs,
    )
    .toEqual(expect.any(Number));
  await expect.poll(async () => (await (await fetch(`${url}/terminal`)).json()).code).toBe('csrf-rejected');
  await context.route(`${server.url}/relay/v1/probe`, async (route) => {
    await setTimeout(serverProbeMs);
    await route.continue();
  });
  const sockets: string[] = [];
  page.on('websocket', (socket) => sockets.push(new URL(socket.url()).origin));
  const opened = () => sockets.filter((origin) => origin === url.replace('http', 'ws')).length;

  await page.goto(terminal());
  await visible(page.getByText('over tokyo', { exact: true }));
  await shows('$');
  await page.keyboard.type('kept=yes; echo over-$((1+1))\n');
  await shows('over-2');
  expect(opened()).toBe(1);
  const title = await page.getByText('over tokyo', { exact: true }).getAttribute('title');
  expect(title).toMatch(/^\d+ ms over tokyo, \d\d+ ms over the server, to the workspace and back$/);
  await picture(page, 'terminal-over-satellite');
  // Apart from the satellite's, no violation of the policy.
  watched.forgive(new RegExp(`^request: ${url}/relay/v1/probe`));
  expect(watched.faults).toEqual([]);

  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
  await visible(page.getByText('over the server', { exact: true }));
  await shows('over-2');
  await page.locator('.xterm').click();
  await page.keyboard.type('echo $kept-still\n');
  await shows('yes-still');

  // It is back and near, but opens no shell.
  await start();
  await page.routeWebSocket(`${url.replace('http', 'ws')}/terminal`, (socket) => socket.close());
  await page.goto(terminal());
  await visible(page.getByText('over the server', { exact: true }));
  await shows('yes-still');
  await page.locator('.xterm').click();
  await page.keyboard.type('echo $kept-again\n');
  await shows('yes-again');
  watched.faults.splice(0);
});
