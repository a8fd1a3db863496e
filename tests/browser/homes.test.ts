import type { RetainedHome, Workspace } from '@cde/api/workspaces.ts';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { picture } from './pictures.ts';
import { gone, type Stage, setStage, visible } from './stage.ts';

let stage: Stage;
let server: Stage['server'];
let page: Stage['page'];
let api: Stage['api'];
let username: string;

const button = (name: string | RegExp) => page.getByRole('button', { name });
const link = (name: string | RegExp) => page.getByRole('link', { name });
const row = (name: string) => page.getByRole('row').filter({ has: page.getByRole('rowheader', { name }) });
const dialog = () => page.getByRole('dialog');
const running = () => visible(page.locator('.page-head .status.good'));
const log = () => page.getByRole('log');

beforeAll(async () => {
  // An owner of the installation restores another user's home below.
  stage = await setStage({ CDE_FOREIGN_UPDATES: 'on' });
  ({ server, page, api } = stage);
  await page.goto(server.link);
  await visible(page.getByRole('heading', { name: 'Workspaces' }));
  username = (await api<{ username: string }>('GET', '/api/v1/users/me')).username;
  const script = 'cat note 2>/dev/null || { echo written by the first > note; echo made the note; }';
  const template = `name: noting\nprovider: local\nstartup:\n  script: ${JSON.stringify(script)}\n`;
  await api('POST', '/api/v1/templates', { files: { 'template.yaml': template } });
});
afterAll(() => stage?.close());
afterEach(() => {
  expect(stage.watched.faults.splice(0)).toEqual([]);
});

async function make(name: string): Promise<void> {
  await api('POST', '/api/v1/workspaces', { name, template: 'noting' });
  await page.goto(`${server.url}/workspaces/${username}/${name}`);
  await running();
}

async function removeInPage(name: string): Promise<void> {
  await button(`More actions for ${name}`).click();
  await page.getByRole('menuitem', { name: 'Delete…' }).click();
  expect(await dialog().getByLabel('Keep it for the grace period').isChecked()).toBe(true);
  await picture(page, 'delete');
  await dialog().getByRole('button', { name: 'Delete', exact: true }).click();
  await gone(dialog());
  await visible(page.getByText(`${username}/${name} is deleted`));
}

test('an empty page says when homes would appear', async () => {
  await link('Homes').click();
  await visible(page.getByText('No retained homes'));
  await picture(page, 'homes-none');
});

test('a deleted workspace leaves its home, which is restored into a new one', async () => {
  await make('first');
  await visible(log().getByText('made the note'));
  await removeInPage('first');

  await page.goto(`${server.url}/homes`);
  await visible(row('first').getByText('noting'));
  await visible(row('first').getByText(/in \d/));
  await picture(page, 'homes');
  await link('Restore the home of first').click();
  await visible(page.getByRole('heading', { name: 'New workspace' }));
  // The form is filled in: template, home, and the old name.
  expect(await page.getByLabel('Name').inputValue()).toBe('first');
  const [kept] = (await api<{ items: RetainedHome[] }>('GET', '/api/v1/homes')).items;
  expect(await page.getByLabel('Home').inputValue()).toBe(kept!.id);
  await visible(page.getByText(`The files of ${username}/first, deleted`));
  await picture(page, 'create-with-home');
  await page.getByLabel('Name').fill('second');
  await button('Create and start').click();
  await page.waitForURL(`${server.url}/workspaces/${username}/second`);
  await running();
  await visible(log().getByText('written by the first'));
  await page.goto(`${server.url}/homes`);
  await visible(page.getByText('No retained homes'));
});

test('a home can be chosen while a workspace is created', async () => {
  await page.goto(`${server.url}/workspaces/${username}/second`);
  await running();
  await removeInPage('second');
  await page.goto(`${server.url}/workspaces/new?template=noting`);
  expect(await page.getByLabel('Home').inputValue()).toBe('');
  await page.getByLabel('Name').fill('third');
  await page.getByLabel('Home').selectOption({ index: 1 });
  expect(await page.getByLabel('Name').inputValue()).toBe('third');
  await page.getByLabel('Home').selectOption('');
  await button('Create and start').click();
  await page.waitForURL(`${server.url}/workspaces/${username}/third`);
  await running();
  await visible(log().getByText('made the note'));
  expect((await api<{ items: RetainedHome[] }>('GET', '/api/v1/homes')).items).toHaveLength(1);
});

test('a home that has disappeared is reported and never replaced by an empty one', async () => {
  const [kept] = (await api<{ items: RetainedHome[] }>('GET', '/api/v1/homes')).items;
  await page.goto(`${server.url}/workspaces/new?template=noting&home=${kept!.id}`);
  await visible(page.getByText(`The files of ${username}/second, deleted`));
  await page.getByLabel('Name').fill('fourth');
  await api('DELETE', `/api/v1/homes/${kept!.id}`);
  await button('Create and start').click();
  await visible(page.locator('.field-error').getByText(/There is no retained home/));
  expect(page.url()).toContain('/workspaces/new');
  expect(
    (await api<{ items: Workspace[] }>('GET', '/api/v1/workspaces')).items.map(({ name }) => name),
  ).toEqual(['third']);
  await page.reload();
  await visible(page.getByText(/is no longer available/));
});

test('a home is discarded when the name is typed; an open page sees it come by itself', async () => {
  await page.goto(`${server.url}/homes`);
  await visible(page.getByText('No retained homes'));
  await api('DELETE', `/api/v1/workspaces/${username}~third`);
  await visible(row('third'));
  await button('Discard the home of third').click();
  const sure = dialog().getByRole('button', { name: 'Discard home' });
  expect(await sure.isDisabled()).toBe(true);
  await picture(page, 'home-discard');
  await dialog()
    .getByLabel(/Type third/)
    .fill('third');
  await sure.click();
  await gone(dialog());
  await visible(page.getByText('No retained homes'));
  expect((await api<{ items: RetainedHome[] }>('GET', '/api/v1/homes')).items).toEqual([]);
});

test("an owner sees everybody's homes and restores one for its user; a member sees the member's own", async () => {
  await api('POST', '/api/v1/users', { username: 'grace', role: 'member', password: 'a long password' });
  await api<Workspace>('POST', '/api/v1/workspaces', {
    name: 'hers',
    owner: 'grace',
    template: 'noting',
    start: false,
  });
  await page.goto(`${server.url}/workspaces/grace/hers`);
  await button('Start hers').click();
  await running();
  await api('DELETE', `/api/v1/workspaces/grace~hers`);
  await page.goto(`${server.url}/homes`);
  await visible(page.getByText('No retained homes'));
  await page.getByLabel('Whose homes').selectOption('all');
  await visible(row('grace/hers'));
  await link('Restore the home of hers').click();
  await visible(page.getByText('grace/hers from noting v1'));
  await button('Create and start').click();
  await page.waitForURL(`${server.url}/workspaces/grace/hers`);
  await running();
  // Only its own user sees what it printed.
  await visible(log().getByText(/of the startup script/));
});
