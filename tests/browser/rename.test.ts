import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { picture } from './pictures.ts';
import { gone, type Stage, setStage, visible } from './stage.ts';

let stage: Stage;
beforeAll(async () => {
  stage = await setStage();
  await stage.page.goto(stage.server.link);
  await visible(stage.page.getByRole('heading', { name: 'Workspaces' }));
});
afterAll(() => stage?.close());
afterEach(() => {
  expect(stage.watched.faults.splice(0)).toEqual([]);
});

test('a workspace is renamed on its page, which moves to the new address', async () => {
  const { page, server, api } = stage;
  const { username } = await api<{ username: string }>('GET', '/api/v1/users/me');
  await api('POST', '/api/v1/templates', {
    files: { 'template.yaml': 'name: plain\nprovider: local\n' },
  });
  await api('POST', '/api/v1/workspaces', { name: 'before', template: 'plain', start: false });
  await page.goto(`${server.url}/workspaces/${username}/before`);
  await page.getByRole('button', { name: 'More actions for before' }).click();
  await page.getByRole('menuitem', { name: 'Rename…' }).click();
  const dialog = page.getByRole('dialog');
  const name = dialog.getByLabel('New name');
  await name.fill('Not A Name');
  await dialog.getByRole('button', { name: 'Rename' }).click();
  await visible(dialog.getByText(/lower-case letters, digits and hyphens, starting with a letter/));
  await picture(page, 'rename');
  await name.fill('world');
  await dialog.getByRole('button', { name: 'Rename' }).click();
  await gone(dialog);
  await page.waitForURL(`**/workspaces/${username}/world`);
  await visible(page.getByRole('heading', { name: 'world' }));
});
