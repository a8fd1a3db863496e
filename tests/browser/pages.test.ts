import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { picture } from './pictures.ts';
import { starterTemplate } from './server.ts';
import { gone, nameless, type Stage, setStage, visible, widerThanPage } from './stage.ts';

let stage: Stage;
let server: Stage['server'];
let page: Stage['page'];
let api: Stage['api'];
let username: string;

const button = (name: string | RegExp) => page.getByRole('button', { name });
const link = (name: string | RegExp) => page.getByRole('link', { name });

beforeAll(async () => {
  stage = await setStage();
  ({ server, page, api } = stage);
  await page.goto(server.link);
  await visible(page.getByRole('heading', { name: 'Workspaces' }));
  username = (await api<{ username: string }>('GET', '/api/v1/users/me')).username;
  await api('POST', '/api/v1/templates', { files: starterTemplate() });
  await api('POST', '/api/v1/workspaces', { name: 'first', template: 'local' });
});
afterAll(() => stage?.close());
afterEach(() => {
  expect(stage.watched.faults.splice(0)).toEqual([]);
});

describe('tokens', () => {
  test('are shown once, work, and stop working when revoked', async () => {
    await page.goto(`${server.url}/tokens`);
    await button('New token').click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Name').fill('ci runner');
    await dialog.getByLabel('Read only').check();
    await dialog.getByRole('button', { name: 'Create' }).click();
    await visible(dialog.getByText('It is not shown again'));
    await dialog.getByRole('button', { name: 'Copy the token' }).click();
    const token = await page.evaluate(() => navigator.clipboard.readText());
    expect(token).toMatch(/^cde_/);
    const ask = () =>
      fetch(`${server.url}/api/v1/users/me`, { headers: { authorization: `Bearer ${token}` } }).then(
        (reply) => reply.status,
      );
    expect(await ask()).toBe(200);
    await dialog.getByRole('button', { name: 'Done' }).click();
    expect(await page.content()).not.toContain(token);

    const line = page.getByRole('row', { name: /ci runner/ });
    expect(await line.innerText()).toContain('Read only');
    await line.getByRole('button', { name: 'Revoke ci runner' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    await gone(line);
    expect(await ask()).toBe(401);
  });
});

describe('the login of the cde command', () => {
  test('is approved by its user', async () => {
    const begun = await (
      await fetch(`${server.url}/api/v1/auth/cli`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ hostname: 'a-laptop' }),
      })
    ).json();
    const poll = async () =>
      (
        await fetch(`${server.url}/api/v1/auth/cli/token`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ deviceCode: begun.deviceCode }),
        })
      ).json();
    await page.goto(begun.url);
    await visible(page.getByText('a-laptop'));
    await visible(page.getByText(begun.userCode));
    expect(await poll()).toMatchObject({ status: 'pending' });
    await button('Allow').click();
    await visible(page.getByText(/The command is logged in as/));
    await expect.poll(poll, { interval: begun.pollEveryMs }).toMatchObject({ status: 'approved', username });
  });

  test('an unknown code is rejected with an explanation', async () => {
    await page.goto(`${server.url}/cli-login?code=ZZZZ-ZZZZ`);
    await visible(page.getByRole('alert'));
    expect(await page.getByRole('alert').innerText()).toContain('cli-login-not-found');
  });
});

describe('administration', () => {
  test('users are created and suspended, which the audit log records', async () => {
    await page.goto(`${server.url}/users`);
    await button('New user').click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Username').fill('Grace');
    await dialog.getByRole('button', { name: 'Create' }).click();
    await visible(dialog.locator('.field-error'));
    await dialog.getByLabel('Username').fill('grace');
    await dialog.getByLabel('Role').selectOption('auditor');
    await dialog.getByRole('button', { name: 'Create' }).click();
    await gone(dialog);
    const grace = page.getByRole('row', { name: /grace/ });
    await visible(grace);
    await button('Actions for grace').click();
    await page.getByRole('menuitem', { name: 'Suspend' }).click();
    await visible(grace.getByText('suspended'));
    await picture(page, 'users');

    await link('Audit').click();
    await page.getByLabel('Target').fill('grace');
    await button('Filter').click();
    await page.waitForURL(/target=grace/);
    const created = page.getByRole('row').filter({ hasText: 'user.create' }).filter({ hasText: 'grace' });
    await visible(created);
    await created.getByRole('button', { name: 'Details' }).click();
    await visible(page.getByText('"auditor"').first());
    await picture(page, 'audit');
    expect(await page.getByText('token.create').count()).toBe(0);
  });

  test('templates are shown with their versions', async () => {
    await page.goto(`${server.url}/templates`);
    await picture(page, 'templates');
    await link('This machine').click();
    await visible(page.getByRole('heading', { name: 'Versions' }));
    await visible(page.getByRole('cell', { name: 'v1 active' }));
  });
});

describe('every page', () => {
  const paths = () => [
    '/workspaces',
    '/workspaces?owner=all&q=nothing',
    '/workspaces/new?template=local',
    `/workspaces/${username}/first`,
    `/workspaces/${username}/nobody`,
    '/templates',
    '/templates/local',
    '/tokens',
    '/account',
    '/users',
    '/audit',
    '/homes',
    '/clusters',
    '/satellites',
    '/cleanup',
    '/cli-login',
    '/no/such/page',
  ];

  test.each([
    ['light', 360],
    ['dark', 1280],
  ] as const)('has a main part, fits, and names its controls: %s, %i pixels wide', async (scheme, width) => {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height: 740 });
    for (const path of paths()) {
      await page.goto(server.url + path, { waitUntil: 'networkidle' });
      await visible(page.getByRole('main'));
      expect(await widerThanPage(page), path).toEqual([]);
      expect(await nameless(page), path).toEqual([]);
    }
    await page.setViewportSize({ width: 1280, height: 800 });
    await page.emulateMedia({ colorScheme: 'light' });
  });

  test('the API reference renders', async () => {
    await page.goto(`${server.url}/api/docs`);
    await visible(page.getByText('/api/v1/workspaces', { exact: true }).first());
    await visible(page.locator('.swagger-ui .opblock').first());
  });

  test('the terminal is loaded only when it is opened', async () => {
    const loaded: string[] = [];
    page.on('request', (request) => loaded.push(request.url()));
    await page.goto(`${server.url}/workspaces`, { waitUntil: 'networkidle' });
    expect(loaded.filter((url) => url.includes('terminal'))).toEqual([]);
    page.removeAllListeners('request');
  });
});
