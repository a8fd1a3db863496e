import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { seedSession } from '../../scripts/seed-sessions.ts';
import { until } from '../kit/until.ts';
import { picture } from './pictures.ts';
import { gone, nameless, type Stage, setStage, visible, widerThanPage } from './stage.ts';

let stage: Stage;
let connection: string;
beforeAll(async () => {
  stage = await setStage();
  const { page, api, server } = stage;
  await page.goto(server.link);
  await visible(page.getByRole('heading', { name: 'Workspaces' }));
  const { username } = await api<{ username: string }>('GET', '/api/v1/users/me');
  await api('POST', '/api/v1/templates', { files: { 'template.yaml': 'name: plain\nprovider: local\n' } });
  await api('POST', '/api/v1/workspaces', { name: 'web', template: 'plain', start: false });
  connection = `${server.url}/workspaces/${username}/web/connection`;
});
afterAll(() => stage?.close());
afterEach(() => {
  expect(stage.watched.faults.splice(0)).toEqual([]);
});

test('a workspace without sessions says what would appear', async () => {
  const { page, server } = stage;
  await page.goto(connection);
  await visible(page.getByText('No recorded sessions in this time'));
  await picture(page, 'connection-empty');
  await page.goto(`${server.url}/network`);
  await visible(page.getByText('No session was used in this time'));
});

test('from the workspace to the timeline of its sessions: legs, paths, and incidents with their sentence', async () => {
  const { page, api, server } = stage;
  const { id } = await api<{ id: string }>('GET', '/api/v1/workspaces/web');
  for (const body of seedSession(id, server.url))
    await api('POST', `/api/v1/workspaces/${id}/recordings`, body);
  await page.goto(connection.replace(/\/connection$/, ''));
  await page.getByRole('link', { name: 'How the sessions went' }).click();
  await page.waitForURL(connection);
  await visible(
    page.getByRole('img', { name: /^Round trips by leg over time\. To the agent usually \d+ ms/ }),
  );
  await visible(page.getByText('relay embedded').first());
  await visible(page.getByText('direct-udp').first());

  const sleep = /without a connection: this machine slept for 90 s; resumed through embedded/;
  const mark = page.getByRole('button', { name: sleep });
  const sentence = page.locator('.incident-sentence');
  await mark.focus();
  await visible(sentence.getByText(sleep));
  await visible(page.locator('.incident-list li[aria-current]').getByText('client-slept'));
  await page
    .getByRole('button', { name: /the satellite/ })
    .first()
    .hover();
  await gone(sentence.getByText(sleep));
  await picture(page, 'connection');

  await page.getByText('Show as a table').click();
  await visible(page.getByRole('columnheader', { name: 'To the satellite' }));
  await page.getByRole('radio', { name: 'Last 2 days' }).check();
  await page.waitForURL(/range=2d/);
  await visible(page.getByText('one point per hour'));
  await page.getByRole('radio', { name: 'Live' }).check();
  await visible(page.getByText('one point per ten seconds'));
  await visible(page.getByText('No incidents in this time.'));
});

test('the network page has regions, causes and the worst session, which leads to its timeline', async () => {
  const { page, api, server } = stage;
  // What was recorded is part of the overview a little later.
  await until(
    () => api<{ total: { ms: number } }>('GET', '/api/v1/network'),
    ({ total }) => total.ms > 10_000_000,
    240_000,
  );
  await page.goto(`${server.url}/network`);
  await visible(page.getByRole('rowheader', { name: 'embedded' }).first());
  await visible(page.getByRole('heading', { name: 'Incidents by cause' }).first());
  await visible(page.getByRole('rowheader', { name: 'client-slept' }).last());
  await page.getByLabel('Time to show').selectOption('7d');
  await page.waitForURL(/range=7d/);
  await page.getByLabel('Group by').selectOption('user');
  await page.waitForURL(/by=user/);
  await picture(page, 'network');
  const { username } = await api<{ username: string }>('GET', '/api/v1/users/me');
  await page
    .getByRole('link', { name: `${username}/web` })
    .last()
    .click();
  await page.waitForURL(/\/web\/connection\?/);
});

test('the health page says what is wrong, or that nothing is', async () => {
  const { page, server } = stage;
  await page.goto(`${server.url}/health`);
  await visible(page.getByRole('heading', { name: 'Checks' }));
  await visible(
    page
      .getByText('Nothing is wrong')
      .or(page.getByRole('list', { name: /^Findings/ }))
      .first(),
  );
  await page.route('**/api/v1/health', (route) =>
    route.fulfill({
      json: {
        at: new Date().toISOString(),
        checks: [
          { name: 'database', state: 'passed', because: [] },
          { name: 'satellites', state: 'failed', because: [] },
        ],
        findings: [
          {
            ...{ code: 'satellite-offline', severity: 'error', target: 'tokyo', dependsOn: [] },
            message: 'The satellite tokyo has not reported.',
            hint: 'Check its process, and that it reaches the server.',
            actions: [{ kind: 'list-satellites' }],
            since: new Date(Date.now() - 600_000).toISOString(),
          },
        ],
      },
    }),
  );
  await page.getByRole('button', { name: 'Check again' }).click();
  const findings = page.getByRole('list', { name: /^Findings/ });
  await visible(findings.getByText('The satellite tokyo has not reported.'));
  await visible(findings.getByText('satellite-offline'));
  await picture(page, 'health');
  await page.unroute('**/api/v1/health');
});

test('the pages fit a narrow screen, and each control has a name', async () => {
  const { page, server } = stage;
  const usual = page.viewportSize()!;
  for (const url of [connection, `${server.url}/network`, `${server.url}/health`]) {
    await page.setViewportSize(usual);
    await page.goto(url);
    await visible(page.locator('.chart canvas, .facts').first());
    expect(await nameless(page)).toEqual([]);
    await page.setViewportSize({ width: 360, height: 740 });
    await until(
      () => widerThanPage(page),
      (wide) => wide.length === 0,
    );
    expect(await widerThanPage(page)).toEqual([]);
  }
  await page.setViewportSize(usual);
});
