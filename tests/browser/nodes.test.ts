import { hostname } from 'node:os';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { picture } from './pictures.ts';
import { type Stage, setStage, visible } from './stage.ts';

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

test('from the list of nodes to a workspace on one, and back', async () => {
  const { page, api, server } = stage;
  const { username } = await api<{ username: string }>('GET', '/api/v1/users/me');
  await api('POST', '/api/v1/templates', {
    files: { 'template.yaml': 'name: plain\nprovider: local\n' },
  });
  await api('POST', '/api/v1/workspaces', { name: 'web', template: 'plain' });
  await page.goto(`${server.url}/workspaces/${username}/web`);
  const nodeLink = page.getByRole('link', { name: hostname(), exact: true });
  await visible(nodeLink);

  await page.getByRole('link', { name: 'Nodes' }).click();
  await visible(page.getByRole('heading', { name: 'Nodes', exact: true }));
  await visible(nodeLink);
  await picture(page, 'nodes');
  await page.getByLabel('Search nodes by name').fill('no-such-node');
  await visible(page.getByText('No nodes match'));
  await page.getByRole('link', { name: 'Show all nodes' }).click();
  await visible(nodeLink);
  expect(await page.getByLabel('Search nodes by name').inputValue()).toBe('');
  // The box and its label are on one line.
  const [box, label] = await Promise.all([
    page.getByRole('checkbox').boundingBox(),
    page.getByText('Only with problems').boundingBox(),
  ]);
  expect(label!.y).toBeLessThan(box!.y + box!.height);
  await nodeLink.click();
  await page.waitForURL(`**/nodes/local~${hostname()}`);
  await visible(page.getByText('noded maintains kernel profiles on the nodes of clusters only.'));
  await picture(page, 'node');
  await page.getByRole('link', { name: `${username}/web` }).click();
  await page.waitForURL(`**/workspaces/${username}/web`);
  await nodeLink.click();
  await page.waitForURL(`**/nodes/local~${hostname()}`);
});
