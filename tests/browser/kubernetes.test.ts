import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RetainedHome, Workspace } from '@cde/api/workspaces.ts';
import { openTestCluster, type TestCluster } from '@cde/server/providers/kubernetes/testing/cluster.ts';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { agentTestImage } from '../cluster/agent-image.ts';
import { images } from '../cluster/images.ts';
import { findCluster } from './cluster.ts';
import { picture } from './pictures.ts';
import { gone, type Stage, setStage, visible } from './stage.ts';

// Only on our test cluster, if it is up, because the test builds images on its node.
const kubeconfig = process.env.CDE_TEST_KUBECONFIG ? null : await findCluster();

const name = `seen-${Date.now().toString(36)}`;
const script = 'cat note 2>/dev/null || { echo written by the first > note; echo made the note; }';
const template = `name: team
provider: kubernetes
home: { size: 64Mi }
startup: { script: ${JSON.stringify(script)} }
kubernetes: { image: ${images.debian}, pullPolicy: IfNotPresent, memory: 256Mi }
`;

describe.runIf(kubeconfig)('a workspace on Kubernetes', () => {
  let stage: Stage;
  let server: Stage['server'];
  let page: Stage['page'];
  let api: Stage['api'];
  let cluster: TestCluster;
  let folder: string;
  let username: string;

  const button = (label: string | RegExp) => page.getByRole('button', { name: label });
  const dialog = () => page.getByRole('dialog');
  const running = () => visible(page.locator('.page-head .status.good'));
  const fact = (title: string) => page.locator('.facts dt', { hasText: title }).locator('+ dd');

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'cde-browser-kubernetes-'));
    writeFileSync(join(folder, 'kubeconfig'), kubeconfig!);
    cluster = await openTestCluster();
    const [node] = await cluster.list({
      apiVersion: 'v1',
      kind: 'Node',
      labels: 'kubernetes.io/hostname=cde-test',
    });
    const { addresses } = node!.status as { addresses: { type: string; address: string }[] };
    // The address at which pods reach this machine. A browser restricts it more than localhost.
    const host = addresses.find(({ type }) => type === 'InternalIP')!.address;
    stage = await setStage({
      CDE_CLUSTER: join(folder, 'kubeconfig'),
      CDE_AGENT_IMAGE: await agentTestImage(),
      CDE_LISTEN: `${host}:0`,
    });
    ({ server, page, api } = stage);
    await page.goto(server.link);
    await visible(page.getByRole('heading', { name: 'Workspaces' }));
    username = (await api<{ username: string }>('GET', '/api/v1/users/me')).username;
    await api('POST', '/api/v1/templates', { files: { 'template.yaml': template } });
  }, 300_000);
  afterAll(async () => {
    const kept = stage && (await api<{ items: RetainedHome[] }>('GET', '/api/v1/homes'));
    for (const { id } of kept?.items ?? []) await api('DELETE', `/api/v1/homes/${id}`);
    await stage?.close();
    cluster?.close();
    rmSync(folder, { recursive: true, force: true });
  }, 120_000);
  afterEach(() => {
    // What a browser reports about any page that is neither on localhost nor https.
    stage.watched.forgive(/Cross-Origin-Opener-Policy header has been ignored/);
    expect(stage.watched.faults.splice(0)).toEqual([]);
  });

  test('is created, and its page shows where it runs and how to reach it', async () => {
    await page.goto(`${server.url}/workspaces/new`);
    await page.getByLabel('Name').fill(name);
    await button('Create and start').click();
    await page.waitForURL(`${server.url}/workspaces/${username}/${name}`);
    await running();
    const namespace = `cde-${username}-${name}`;
    expect(await fact('Namespace').innerText()).toBe(namespace);
    expect(await fact('Cluster').innerText()).toBe('default');
    await visible(page.getByText(`cde kubeconfig ${name}`, { exact: true }));
    await visible(page.getByText(`cde env ${name} -- kubectl get pods`, { exact: true }));
    await picture(page, 'workspace-kubernetes');
    await fact('Cluster').getByRole('link').click();
    await visible(page.getByText(/^Everything needed/));
    expect(await fact('Workspaces').innerText()).toBe('1');
    // In use, so that it cannot be deleted.
    await button('Remove…').click();
    await dialog().getByRole('button', { name: 'Remove' }).click();
    await visible(dialog().getByText('cluster-in-use'));
    await dialog().getByRole('button', { name: 'Keep it' }).click();
  });

  test('the reason that blocks a start is shown as the cluster words it', async () => {
    const failing = template
      .replace('name: team', 'name: failing')
      .replace(images.debian, 'cde-test/nothing:1');
    await api('POST', '/api/v1/templates', { files: { 'template.yaml': failing } });
    await api<Workspace>('POST', '/api/v1/workspaces', { name: `${name}-b`, template: 'failing' });
    await page.goto(`${server.url}/workspaces/${username}/${name}-b`);
    await visible(
      page
        .getByRole('log')
        .getByText(/cde-test\/nothing:1/)
        .first(),
    );
    await picture(page, 'workspace-kubernetes-failing');
    await api('DELETE', `/api/v1/workspaces/${username}~${name}-b?home=discard`);
    await visible(page.getByText(`${username}/${name}-b is deleted`));
  });

  test('leaves its home, with its size, which can be restored in a new workspace', async () => {
    await page.goto(`${server.url}/workspaces/${username}/${name}`);
    await running();
    await button(`More actions for ${name}`).click();
    await page.getByRole('menuitem', { name: 'Delete…' }).click();
    await dialog().getByRole('button', { name: 'Delete', exact: true }).click();
    await gone(dialog());
    await visible(page.getByText(`${username}/${name} is deleted`));
    await page.goto(`${server.url}/homes`);
    const row = page.getByRole('row').filter({ has: page.getByRole('rowheader', { name }) });
    await visible(row.getByText('64Mi'));
    await visible(row.getByText('kubernetes, default'));
    await picture(page, 'homes-kubernetes');
    await row.getByRole('link', { name: `Restore the home of ${name}` }).click();
    await page.getByLabel('Name').fill(`${name}-c`);
    await button('Create and start').click();
    await page.waitForURL(`${server.url}/workspaces/${username}/${name}-c`);
    await running();
    await visible(page.getByRole('log').getByText('written by the first'));
  });
});
