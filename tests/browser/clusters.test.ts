import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Cluster, Orphan } from '@cde/api/clusters.ts';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { patienceMs } from '../kit/until.ts';
import { findCluster } from './cluster.ts';
import { picture } from './pictures.ts';
import { gone, nameless, type Stage, setStage, visible, widerThanPage } from './stage.ts';

// Only one test needs a cluster.
const real = await findCluster();

let stage: Stage;
let server: Stage['server'];
let page: Stage['page'];
let api: Stage['api'];
let folder: string;
let unreachable: string;

const button = (name: string | RegExp) => page.getByRole('button', { name });
const link = (name: string | RegExp) => page.getByRole('link', { name });
const row = (name: string) => page.getByRole('row').filter({ has: page.getByRole('rowheader', { name }) });
const dialog = () => page.getByRole('dialog');

/** A port of this machine on which nothing listens. */
async function closedPort(): Promise<number> {
  const listener = createServer().listen(0, '127.0.0.1');
  await new Promise((done) => listener.once('listening', done));
  const { port } = listener.address() as { port: number };
  await new Promise((done) => listener.close(done));
  return port;
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cde-browser-clusters-'));
  unreachable = [
    'apiVersion: v1',
    'kind: Config',
    `clusters: [{name: c, cluster: {server: "https://127.0.0.1:${await closedPort()}"}}]`,
    'users: [{name: u, user: {token: nobody}}]',
    'contexts: [{name: x, context: {cluster: c, user: u}}]',
    'current-context: x',
    '',
  ].join('\n');
  writeFileSync(join(folder, 'kubeconfig'), unreachable);
  stage = await setStage({ CDE_CLUSTER: join(folder, 'kubeconfig') });
  ({ server, page, api } = stage);
  await page.goto(server.link);
  await visible(page.getByRole('heading', { name: 'Workspaces' }));
});
afterAll(async () => {
  await stage?.close();
  rmSync(folder, { recursive: true, force: true });
});
afterEach(() => {
  expect(stage.watched.faults.splice(0)).toEqual([]);
});

describe('clusters', () => {
  test('one that cannot be reached is shown as unreachable, with the reason', async () => {
    await link('Clusters').click();
    await visible(row('default').getByText('Unreachable'));
    expect(await row('default').innerText()).toContain('127.0.0.1');
    await visible(row('default').getByText('It has never been reached.'));
    await picture(page, 'clusters-away');
    await link('default').click();
    await visible(page.getByRole('heading', { name: 'What workspaces need' }));
    await visible(page.getByText('1 missing'));
    await visible(page.getByText('Not checked, because the cluster is unreachable.'));
    await picture(page, 'cluster-away');
  });

  test('labels, region and address can be changed; errors appear at the field', async () => {
    await page.goto(`${server.url}/clusters/default`);
    await button('Change…').click();
    await dialog().getByLabel('Region').fill('europe-west1');
    await dialog().getByLabel('Labels').fill('gpu');
    await dialog().getByRole('button', { name: 'Change' }).click();
    await visible(dialog().getByText('“gpu” is not name=value.'));
    await dialog().getByLabel('Labels').fill('gpu=a100\ntier=fast');
    await dialog().getByLabel('Address for developers').fill('nonsense');
    await dialog().getByRole('button', { name: 'Change' }).click();
    await visible(dialog().locator('.field-error'));
    await picture(page, 'cluster-change');
    await dialog().getByLabel('Address for developers').fill('https://kube.example.com');
    await dialog().getByRole('button', { name: 'Change' }).click();
    await gone(dialog());
    await visible(page.getByText('gpu=a100'));
    await visible(page.getByText('europe-west1'));
    const [cluster] = (await api<{ items: Cluster[] }>('GET', '/api/v1/clusters')).items;
    expect(cluster).toMatchObject({
      region: 'europe-west1',
      labels: { gpu: 'a100', tier: 'fast' },
      publicEndpoint: 'https://kube.example.com',
    });
  });

  test('a kubeconfig that does not work is rejected at its field', async () => {
    await page.goto(`${server.url}/clusters`);
    await button('Add a cluster').click();
    await dialog().getByRole('button', { name: 'Add' }).click();
    await visible(dialog().getByText(/The name is not valid/));
    await visible(dialog().getByText('Paste a kubeconfig, or choose its file.'));
    await dialog().getByLabel('Name', { exact: true }).fill('second');
    await dialog().getByLabel('Kubeconfig', { exact: true }).fill('this is no kubeconfig');
    await dialog().getByRole('button', { name: 'Add' }).click();
    await visible(dialog().getByText(/The cluster cannot be used with these credentials/));
    // From a file, as a person would choose it.
    await dialog().getByLabel('File of the kubeconfig').setInputFiles(join(folder, 'kubeconfig'));
    await expect
      .poll(() => dialog().getByLabel('Kubeconfig', { exact: true }).inputValue())
      .toBe(unreachable);
    await dialog().getByRole('button', { name: 'Add' }).click();
    await visible(dialog().getByText(/The cluster does not answer/));
    await picture(page, 'cluster-add');
    await page.keyboard.press('Escape');
    await gone(dialog());
  });

  test.runIf(real)('a real one is added, checked and removed', async () => {
    await page.goto(`${server.url}/clusters`);
    await button('Add a cluster').click();
    await dialog().getByLabel('Name', { exact: true }).fill('real');
    await dialog().getByLabel('Region').fill('here');
    await dialog().getByLabel('Kubeconfig', { exact: true }).fill(real!);
    await dialog().getByRole('button', { name: 'Add' }).click();
    await gone(dialog());
    await visible(row('real').getByText('Reachable'));
    await picture(page, 'clusters');
    await row('real').getByRole('link', { name: 'real' }).click();
    await visible(page.getByText(/^Kubernetes v\d/));
    await visible(page.getByText(/^Everything needed/));
    await visible(page.getByText(/^No orphans/));
    await picture(page, 'cluster');

    await button('Make it the default').click();
    await visible(page.locator('.page-head .chip').getByText('default'));
    await button('Remove…').click();
    await dialog().getByRole('button', { name: 'Keep it' }).click();
    await gone(dialog());
    await button('Remove…').click();
    await dialog().getByRole('button', { name: 'Remove' }).click();
    await page.waitForURL(`${server.url}/clusters`);
    await gone(row('real'));
    // After that, the name of another row may contain the mark of the default.
    await visible(row('default').first());
  });

  test('orphans are reported, previewed, and cleaned after a confirmation', async () => {
    // A namespace becomes an orphan only after an hour, so the server's responses are stubbed here.
    const orphan = (name: string, action: Orphan['action'], reason: string): Orphan => ({
      kind: action === 'keep' ? 'home' : 'namespace',
      provider: 'kubernetes',
      cluster: 'default',
      name,
      workspaceId: null,
      since: new Date(Date.now() - 3 * 3600_000).toISOString(),
      reason,
      action,
    });
    let items = [
      orphan('cde-ada-old', 'delete', 'Its workspace ada/old was deleted.'),
      orphan('cde-ada-stuck', 'report', 'It is being deleted and does not end: a finalizer is left.'),
      orphan(
        'pvc-6f1d8e51-52d6-4d9f-8d3e-0d6ad9f9b2f1',
        'keep',
        'The home of ada/lost, which is not in the database.',
      ),
    ];
    const bodies: unknown[] = [];
    await page.route(/\/api\/v1\/orphans\?cluster=default$/, (route) =>
      route.fulfill({ json: { items, unseen: [] } }),
    );
    await page.route(/\/api\/v1\/orphans\/clean$/, (route) => {
      const body = route.request().postDataJSON() as { dryRun: boolean };
      bodies.push(body);
      const reply = { items, done: !body.dryRun };
      if (!body.dryRun) items = items.filter(({ action }) => action !== 'delete');
      return route.fulfill({ json: reply });
    });
    await page.goto(`${server.url}/clusters/default`);
    await visible(page.getByText('cde-ada-stuck'));
    await picture(page, 'orphans');
    await button('Clean…').click();
    await visible(dialog().getByText(/This deletes 1 namespace and all that runs there/));
    expect(await dialog().innerText()).not.toContain('cde-ada-stuck');
    expect(bodies).toEqual([{ dryRun: true, cluster: 'default' }]);
    await picture(page, 'orphans-clean');
    await dialog().getByRole('button', { name: 'Delete 1 namespace' }).click();
    await visible(dialog().getByText('1 namespace deleted; homes in them are kept.'));
    expect(bodies).toHaveLength(2);
    await dialog().getByRole('button', { name: 'Done' }).click();
    await gone(page.getByText('cde-ada-old'));
    await gone(button('Clean…'));
    await page.unroute(/\/api\/v1\/orphans/);
    await page.unrouteAll();
  });

  test('an orphaned home is adopted for a user, and an error says why not', async () => {
    const name = 'pvc-6f1d8e51-52d6-4d9f-8d3e-0d6ad9f9b2f1';
    let items: Orphan[] = [
      {
        kind: 'home',
        provider: 'kubernetes',
        cluster: 'default',
        name,
        workspaceId: null,
        since: new Date(Date.now() - 3 * 3600_000).toISOString(),
        reason: 'The home of ada/lost, which is not in the database.',
        action: 'keep',
      },
      {
        kind: 'workspace',
        provider: 'kubernetes',
        cluster: 'default',
        name: 'ada/gone',
        workspaceId: null,
        since: null,
        reason: 'Its namespace is missing.',
        action: 'report',
      },
    ];
    const bodies: unknown[] = [];
    await page.route(/\/api\/v1\/orphans\?cluster=default$/, (route) =>
      route.fulfill({ json: { items, unseen: [] } }),
    );
    await page.route(/\/api\/v1\/orphans\/adopt$/, (route) => {
      const body = route.request().postDataJSON() as { owner?: string };
      bodies.push(body);
      if (body.owner === 'nobody')
        return route.fulfill({
          status: 404,
          json: { code: 'user-not-found', message: 'There is no user nobody.' },
        });
      items = [];
      const home = { id: '01990000-0000-7000-8000-000000000000', workspace: 'lost', size: '10Gi' };
      const keptUntil = '2030-01-31T12:00:00Z';
      const adopted = { ...home, owner: 'ada', cluster: 'default', volume: name, keptUntil };
      return route.fulfill({ json: { items: [adopted] } });
    });
    await page.goto(`${server.url}/clusters/default`);
    await visible(page.getByText('ada/gone'));
    // A workspace has no home to adopt.
    expect(await button(/^Adopt…/).count()).toBe(1);
    await button(/^Adopt…/).click();
    await visible(dialog().getByText(/This retains the home for a user/));
    await dialog().getByRole('textbox', { name: 'User' }).fill('nobody');
    await dialog().getByRole('button', { name: 'Adopt' }).click();
    await visible(dialog().getByText('There is no user nobody.'));
    await dialog().getByRole('textbox', { name: 'User' }).fill('');
    await picture(page, 'orphans-adopt');
    await dialog().getByRole('button', { name: 'Adopt' }).click();
    await visible(dialog().getByText(/The home of ada\/lost is retained until/));
    expect(bodies).toEqual([
      { cluster: 'default', name, owner: 'nobody' },
      { cluster: 'default', name },
    ]);
    await dialog().getByRole('button', { name: 'Done' }).click();
    await gone(page.getByText(name));
    await page.unrouteAll();
  });

  test('the panel of a provider stays to say what was done with its last orphan', async () => {
    const name = '01990000-0000-7000-8000-00000000000a';
    const reason = 'The home of a workspace that is not in the database.';
    const place = { provider: 'local', cluster: null, workspaceId: null, since: null };
    let items: Orphan[] = [{ ...place, kind: 'home', name, reason, action: 'keep' }];
    await page.route(/\/api\/v1\/orphans(\?provider=local)?$/, (route) =>
      route.fulfill({ json: { items, unseen: [] } }),
    );
    await page.route(/\/api\/v1\/orphans\/adopt$/, (route) => {
      expect(route.request().postDataJSON()).toEqual({ provider: 'local', name, owner: 'ada' });
      items = [];
      const home = { id: name, owner: 'ada', workspace: 'home-0000000a', cluster: null, size: null };
      const keptUntil = '2030-01-31T12:00:00Z';
      return route.fulfill({ json: { items: [{ ...home, provider: 'local', volume: name, keptUntil }] } });
    });
    await page.goto(`${server.url}/clusters`);
    await visible(page.getByRole('region', { name: 'Orphans of the provider local' }));
    await button(/^Adopt…/).click();
    await dialog().getByRole('textbox', { name: 'User' }).fill('ada');
    await dialog().getByRole('button', { name: 'Adopt' }).click();
    await visible(page.getByText('No orphans. Homes without a workspace', { exact: false }));
    await visible(dialog().getByText(/The home of ada\/home-0000000a is retained until/));
    await dialog().getByRole('button', { name: 'Done' }).click();
    await page.unrouteAll();
  });

  test('a cluster that does not exist shows an error', async () => {
    await page.goto(`${server.url}/clusters/nowhere`);
    await visible(page.getByText('There is no cluster nowhere'));
    await link('Go to the clusters').click();
    // After that, the name of another row may contain the mark of the default.
    await visible(row('default').first());
  });

  test('after the last one is removed, the page says how to add one', async () => {
    await page.goto(`${server.url}/clusters/default`);
    await button('Remove…').click();
    await dialog().getByRole('button', { name: 'Remove' }).click();
    await visible(page.getByText('No clusters yet'));
    await picture(page, 'clusters-none');
    await button('Add a cluster').click();
    await visible(dialog());
    await page.keyboard.press('Escape');
  });

  test('without permission to change clusters there are no buttons, and without permission to see them there is no link', async () => {
    const see = async (role: string) => {
      const name = `a-${role}`;
      await api('POST', '/api/v1/users', { username: name, role, password: 'a long password' });
      const context = await stage.browser.newContext();
      context.setDefaultTimeout(patienceMs);
      const signedIn = await context.request.post(`${server.url}/api/v1/auth/sign-in`, {
        headers: { origin: server.url },
        data: { username: name, password: 'a long password' },
      });
      const { sessionKey } = (await signedIn.json()) as { sessionKey: string };
      await context.addInitScript((key) => localStorage.setItem('cde-session-key', key), sessionKey);
      const other = await context.newPage();
      await other.goto(`${server.url}/clusters`);
      return other;
    };
    const auditor = await see('auditor');
    await visible(auditor.getByText('An owner of this installation adds them.', { exact: false }));
    expect(await auditor.getByRole('button', { name: 'Add a cluster' }).count()).toBe(0);
    await auditor.goto(`${server.url}/satellites`);
    await visible(auditor.getByText('No satellites yet'));
    expect(await auditor.getByRole('button', { name: 'Add a satellite' }).count()).toBe(0);
    await auditor.context().close();
    const member = await see('member');
    await visible(member.getByText('Your role cannot see this page'));
    expect(await member.getByRole('alert').count()).toBe(0);
    expect(await member.getByRole('link', { name: 'Clusters' }).count()).toBe(0);
    expect(await member.getByRole('link', { name: 'Satellites' }).count()).toBe(0);
    await member.context().close();
  });

  test.each([
    ['light', 360],
    ['dark', 900],
  ] as const)('the pages fit, and name their controls: %s, %i pixels wide', async (scheme, width) => {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height: 740 });
    for (const path of ['/clusters', '/clusters/default', '/satellites', '/homes', '/homes?owner=all']) {
      await page.goto(server.url + path, { waitUntil: 'networkidle' });
      await visible(page.getByRole('main'));
      expect(await widerThanPage(page), path).toEqual([]);
      expect(await nameless(page), path).toEqual([]);
    }
    await page.setViewportSize({ width: 1280, height: 800 });
    await page.emulateMedia({ colorScheme: 'light' });
  });
});
