import { type ChildProcess, spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { compileCache } from '../kit/compile-cache.ts';
import { picture } from './pictures.ts';
import { gone, type Stage, setStage, visible } from './stage.ts';

const main = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'satellite', 'main.ts');

let stage: Stage;
let server: Stage['server'];
let page: Stage['page'];
let child: ChildProcess | undefined;
let token = '';

const button = (name: string | RegExp) => page.getByRole('button', { name });
const row = () => page.getByRole('row').filter({ has: page.getByRole('rowheader', { name: /tokyo/ }) });
const dialog = () => page.getByRole('dialog');

beforeAll(async () => {
  stage = await setStage();
  ({ server, page } = stage);
  await page.goto(server.link);
  await visible(page.getByRole('heading', { name: 'Workspaces' }));
});
afterAll(async () => {
  child?.kill('SIGKILL');
  await stage?.close();
});
afterEach(() => {
  expect(stage.watched.faults.splice(0)).toEqual([]);
});

test('an added satellite shows its token and how to start it once', async () => {
  await page.getByRole('link', { name: 'Satellites' }).click();
  await visible(page.getByText('No satellites yet'));
  await picture(page, 'satellites-none');
  await button('Add a satellite').click();
  await dialog().getByLabel('Name').fill('embedded');
  await dialog().getByRole('button', { name: 'Add', exact: true }).click();
  await visible(dialog().locator('.field-error'));
  await dialog().getByLabel('Name').fill('tokyo');
  await dialog().getByLabel('Region').fill('ap-northeast-1');
  await dialog().getByRole('button', { name: 'Add', exact: true }).click();
  await visible(dialog().getByText('It is not shown again'));
  await dialog().getByRole('button', { name: 'Copy the command' }).click();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  token = /CDE_SATELLITE_TOKEN=(cde_satellite_\S+)/.exec(command)?.[1] ?? '';
  expect(command).toBe(
    `CDE_SATELLITE_TOKEN=${token} cde satellite start --server ${server.url} --url https://ITS-ADDRESS`,
  );
  await picture(page, 'satellite-added');
  await dialog().getByRole('button', { name: 'Done' }).click();
  await gone(dialog());
  expect(await page.content()).not.toContain(token);
  await visible(row().getByText('New'));
  await visible(row().getByText('ap-northeast-1'));

  // Its name is taken now.
  await button('Add a satellite').click();
  await dialog().getByLabel('Name').fill('tokyo');
  await dialog().getByRole('button', { name: 'Add', exact: true }).click();
  await visible(dialog().locator('.field-error').getByText(/tokyo/));
  await page.keyboard.press('Escape');
  await gone(dialog());
});

test('it is online once it was started, is drained, serves again, and is removed', async () => {
  child = spawn(
    process.execPath,
    [main, '--server', server.url, '--listen', '127.0.0.1:0', '--log-level', 'silent'],
    { env: { PATH: process.env.PATH, ...compileCache, CDE_SATELLITE_TOKEN: token }, stdio: 'ignore' },
  );
  await visible(row().getByText('Online'));
  await button('Actions for tokyo').click();
  await page.getByRole('menuitem', { name: 'Drain' }).click();
  await visible(page.getByText(/tokyo starts draining/));
  await visible(row().getByText('Draining'));
  // It reports every 15 s.
  await visible(row().getByText(/sessions?, \d+ agents?/));
  await visible(row().getByText('Drained'));
  await picture(page, 'satellites');
  await button('Actions for tokyo').click();
  await page.getByRole('menuitem', { name: 'Let it serve again' }).click();
  await visible(page.getByText(/tokyo accepts sessions again/));

  await button('Actions for tokyo').click();
  await page.getByRole('menuitem', { name: 'Remove…' }).click();
  await dialog().getByRole('button', { name: 'Remove' }).click();
  await gone(row());
  await visible(page.getByText('No satellites yet'));
});
