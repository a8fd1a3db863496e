import type { Build, Workspace } from '@cde/api/workspaces.ts';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { patienceMs } from '../kit/until.ts';
import { starterTemplate } from './server.ts';
import { gone, type Stage, setStage, visible } from './stage.ts';

let stage: Stage;
let server: Stage['server'];
let page: Stage['page'];
let api: Stage['api'];
let username: string;

const button = (name: string | RegExp) => page.getByRole('button', { name });
const link = (name: string | RegExp) => page.getByRole('link', { name });
const row = (name: string) => page.getByRole('row').filter({ has: page.getByRole('rowheader', { name }) });
const status = () => page.locator('.page-head .status');

let names = 0;
/** Not taken by an earlier attempt at the same test. */
const newName = (base: string) => `${base}-${++names}`;

/** A template with the startup script `script`. */
const template = (name: string, script: string) => ({
  'template.yaml': `name: ${name}\nprovider: local\nstartup:\n  script: ${JSON.stringify(script)}\n`,
});

async function publish(files: Record<string, string>): Promise<void> {
  await api('POST', '/api/v1/templates', { files });
}

async function create(name: string, from: string): Promise<Workspace> {
  return api('POST', '/api/v1/workspaces', { name, template: from });
}

beforeAll(async () => {
  stage = await setStage();
  ({ server, page, api } = stage);
});
afterAll(() => stage?.close());
afterEach(() => {
  expect(stage.watched.faults.splice(0)).toEqual([]);
});

describe('signing in', () => {
  test('by the one-time link, which leaves no trace in the address', async () => {
    await page.goto(server.link);
    await visible(page.getByRole('heading', { name: 'Workspaces' }));
    expect(page.url()).toBe(`${server.url}/workspaces`);
    username = (await api<{ username: string }>('GET', '/api/v1/users/me')).username;
    await visible(page.getByText('No workspaces yet'));
    await page.goBack();
    expect(page.url()).not.toContain('code=');
    await page.goto(`${server.url}/workspaces`);
  });

  test('a link that was used shows an error', async () => {
    const other = await stage.browser.newContext();
    other.setDefaultTimeout(patienceMs);
    const stranger = await other.newPage();
    await stranger.goto(server.link);
    await stranger.getByRole('alert').waitFor();
    expect(await stranger.getByRole('alert').innerText()).toContain('link-invalid');
    expect(stranger.url()).not.toContain('#');
    await stranger.getByLabel('Password').waitFor();
    await other.close();
  });

  test('a page that needs a sign-in opens after it', async () => {
    await page.goto(`${server.url}/account`);
    await page.getByLabel('New password', { exact: true }).fill('a long password');
    await page.getByLabel('New password again').fill('another one entirely');
    await button('Change password').click();
    await visible(page.getByText('The passwords do not match.'));
    await page.getByLabel('New password again').fill('a long password');
    await button('Change password').click();
    await visible(page.getByText('Your password was changed.'));
    await page.getByRole('main').getByRole('button', { name: 'Sign out' }).click();
    await visible(page.getByRole('heading', { name: 'Sign in' }));

    await page.goto(`${server.url}/tokens`);
    await visible(page.getByRole('heading', { name: 'Sign in' }));
    await page.getByLabel('Username or email').fill(username);
    await page.getByLabel('Password').fill('not the password');
    await page.keyboard.press('Enter');
    await visible(page.getByRole('alert'));
    expect(await page.getByRole('alert').innerText()).toContain('sign-in-failed');
    await page.getByLabel('Password').fill('a long password');
    await page.keyboard.press('Enter');
    await visible(page.getByRole('heading', { name: 'Tokens' }));
    expect(page.url()).toBe(`${server.url}/tokens`);
  });
});

describe('a workspace', () => {
  test('is created with the form, which shows its stages and log live', async () => {
    await publish(starterTemplate());
    await page.goto(`${server.url}/workspaces`);
    await link('Create your first workspace').click();
    await visible(page.getByLabel('Name'));
    await page.getByLabel('Name').fill('Not A Name');
    await visible(page.getByText(/lower-case letters, digits and hyphens/));
    await page.getByLabel('CPUs').fill('900');
    await page.getByLabel('Name').fill('first');
    await button('Create and start').click();
    await visible(page.getByText('Must be from 0.5 to 64.'));
    expect(await page.evaluate(() => (document.activeElement as HTMLInputElement).name)).toBe('cpus');
    await page.getByLabel('CPUs').fill('1');
    await button('Create and start').click();

    await page.waitForURL(`${server.url}/workspaces/${username}/first`);
    await visible(status().getByText('Running', { exact: true }).or(page.locator('.page-head .status.good')));
    await visible(page.locator('.stage.succeeded').filter({ hasText: 'Ready' }));
    expect(await page.locator('.stage.succeeded').count()).toBe(6);
    await visible(page.getByRole('log').getByText('wrote ~/welcome.txt'));
    await visible(page.getByText('cde ssh first', { exact: true }));
    await visible(page.getByText('connected, version', { exact: false }));
    await button('Copy log').click();
    await expect
      .poll(() => page.evaluate(() => navigator.clipboard.readText()))
      .toContain('wrote ~/welcome.txt');
  });

  test('a name that is taken is reported at its field', async () => {
    await page.goto(`${server.url}/workspaces/new?template=local`);
    await page.getByLabel('Name').fill('first');
    await button('Create and start').click();
    await visible(page.locator('.field-error'));
    expect(await page.locator('.field-error').innerText()).toContain('first');
  });

  test('has a terminal', async () => {
    await page.goto(`${server.url}/workspaces/${username}/first`);
    await link('Terminal').click();
    const screen = page.locator('.xterm-rows');
    await visible(page.locator('.xterm-rows').getByText(/[$#]/).first());
    await page.keyboard.type('echo $((6*7))-$HOME\n');
    await expect.poll(() => screen.innerText()).toContain(`42-/home/${username}`);

    // 24-bit colours need style attributes, which the policy forbids in markup.
    await page.keyboard.type("clear; printf '\\033[48;2;10;120;200mcoloured\\033[0m\\n'\n");
    const coloured = screen.locator('span', { hasText: /^coloured$/ }).last();
    await visible(coloured);
    expect(await coloured.evaluate((span) => getComputedStyle(span).backgroundColor)).toBe(
      'rgb(10, 120, 200)',
    );
    // The theme needs style sheets.
    expect(await screen.evaluate((rows) => getComputedStyle(rows).color)).toBe('rgb(24, 33, 32)');

    await page.setViewportSize({ width: 900, height: 600 });
    await page.keyboard.type('while sleep 0.1; do clear; stty size; done\n');
    const columns = async () => Number(/\d+ (\d+)/.exec(await screen.innerText())?.[1]);
    await expect.poll(columns).toBeLessThan(120);
    await page.setViewportSize({ width: 1280, height: 800 });
    await expect.poll(columns).toBeGreaterThan(140);
    await page.keyboard.press('Control+c');

    await page.keyboard.type('exit 3\n');
    await visible(page.getByText(/exit code 3/));
    await button('New shell').click();
    await gone(page.getByText(/exit code 3/));
    await page.keyboard.type('cat ~/welcome.txt\n');
    await expect.poll(() => screen.innerText()).toContain('Welcome to');
  });

  test('is stopped from the list, which updates by itself', async () => {
    await page.goto(`${server.url}/workspaces`);
    await visible(row('first').getByText('Running'));
    await row('first').getByRole('button', { name: 'Stop first' }).click();
    await visible(row('first').getByText('Stopped'));
    // Changed by another client: only an event can update this page.
    const requests: string[] = [];
    page.on('request', (request) => requests.push(request.url()));
    await api('POST', `/api/v1/workspaces/${username}~first/start`, {});
    await visible(row('first').getByText('Running'));
    expect(requests.filter((url) => url.includes('/api/v1/workspaces'))).toEqual([]);
    page.removeAllListeners('request');
  });

  test('a hidden tab receives no events, and is up to date when it is shown again', async () => {
    const frames: string[] = [];
    page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => frames.push(String(payload))));
    await page.goto(`${server.url}/workspaces`);
    await expect.poll(() => frames.join()).toContain('"subscribe"');
    const see = (state: 'hidden' | 'visible') =>
      page.evaluate((value) => {
        Object.defineProperty(document, 'visibilityState', { value, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
      }, state);
    frames.length = 0;
    await see('hidden');
    await expect.poll(() => frames.join()).toContain('"unsubscribe"');
    await api('POST', `/api/v1/workspaces/${username}~first/stop`, {});
    await expect
      .poll(async () => (await api<Workspace>('GET', `/api/v1/workspaces/${username}~first`)).status)
      .toBe('stopped');
    expect(await row('first').innerText()).toContain('Running');
    await see('visible');
    await visible(row('first').getByText('Stopped'));
    page.removeAllListeners('websocket');
  });

  test('is deleted with its home only after its name was typed', async () => {
    await page.goto(`${server.url}/workspaces`);
    await button('More actions for first').focus();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('End');
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog');
    await visible(dialog);
    await dialog.getByLabel('Discard it now').check();
    const sure = dialog.getByRole('button', { name: 'Delete and discard the home' });
    expect(await sure.isDisabled()).toBe(true);
    await dialog.getByLabel(/Type first/).fill('first');
    await sure.click();
    await gone(dialog);
    await visible(page.getByText('No workspaces yet'));
  });
});

let broken: string;

describe('a build', () => {
  test('that fails shows the reason', async () => {
    await publish(template('failing', 'echo before; echo "no such tool" >&2; exit 7'));
    broken = newName('broken');
    await create(broken, 'failing');
    await page.goto(`${server.url}/workspaces/${username}/${broken}`);
    await visible(page.locator('.page-head .status.bad'));
    await visible(page.getByRole('log').getByText('no such tool'));
    expect(await page.locator('.stage.failed').innerText()).toContain('Startup script');
    expect(await page.getByRole('alert').innerText()).toMatch(/7/);
  });

  test('with a long log scrolls along until the user scrolls up, and can be cancelled', async () => {
    await publish(
      template(
        'talking',
        'seq -f "line %.0f of many" 1 1500; while [ ! -e go ]; do sleep 0.05; done; echo went on; sleep 600',
      ),
    );
    const name = newName('talker');
    await create(name, 'talking');
    await page.goto(`${server.url}/workspaces/${username}/${name}`);
    const log = page.getByRole('log');
    await visible(log.getByText('line 1500 of many'));
    const fromEnd = () =>
      log.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight);
    await expect.poll(fromEnd).toBeLessThan(30);
    await log.hover();
    await page.mouse.wheel(0, -2000);
    await visible(button('Follow'));
    expect(await fromEnd()).toBeGreaterThan(500);
    await button('Follow').click();
    await expect.poll(fromEnd).toBeLessThan(30);

    await button(`Cancel ${name}`).click();
    await visible(page.locator('.page-head').getByRole('button', { name: `Start ${name}` }));
    const { items } = await api<{ items: Build[] }>('GET', `/api/v1/workspaces/${username}~${name}/builds`);
    expect(items.find(({ number }) => number === 1)?.status).toBe('cancelled');
  });
});

describe('the connection', () => {
  test('is re-established after the server was killed, and the page reports the loss', async () => {
    // An earlier attempt may have left no server.
    if (!server.runs()) await server.restart();
    await page.goto(`${server.url}/workspaces`);
    await visible(row(broken));
    await server.kill();
    await visible(page.getByText('Reconnecting…'));
    expect(await row(broken).isVisible()).toBe(true);
    await server.restart();
    await gone(page.getByText('Reconnecting…'));
    await api('DELETE', `/api/v1/workspaces/${username}~${broken}?home=discard`);
    await gone(row(broken));
    // What a browser reports about an unreachable server.
    stage.watched.forgive(
      /ERR_CONNECTION_REFUSED|WebSocket connection to|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE/,
    );
  });
});
