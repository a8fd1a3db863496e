import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
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

test('a failed startup script offers a terminal and another start', async () => {
  const { page, server, api } = stage;
  const { username } = await api<{ username: string }>('GET', '/api/v1/users/me');
  await api('POST', '/api/v1/templates', {
    files: { 'template.yaml': 'name: failing\nprovider: local\nstartup:\n  script: exit 3\n' },
  });
  await api('POST', '/api/v1/workspaces', { name: 'broken', template: 'failing' });
  await page.goto(`${server.url}/workspaces/${username}/broken`);
  const problem = page.getByRole('alert');
  await visible(problem.getByText('The startup script failed with exit code 3', { exact: false }));
  expect(await problem.innerText()).not.toMatch(/\bcde /);
  const terminal = problem.getByRole('link', { name: 'Open terminal' });
  expect(await terminal.getAttribute('href')).toBe(`/workspaces/${username}/broken/terminal`);

  await problem.getByRole('button', { name: 'Start workspace' }).click();
  await visible(page.getByRole('heading', { name: 'Start #2' }));
});
