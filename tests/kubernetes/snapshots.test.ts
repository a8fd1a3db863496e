import { randomUUID } from 'node:crypto';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { KubeKind, KubeObject } from '@cde/server/providers/kubernetes/api/client.ts';
import { makeKubernetesProvider } from '@cde/server/providers/kubernetes/provider.ts';
import { openTestCluster, type TestCluster } from '@cde/server/providers/kubernetes/testing/cluster.ts';
import { quiet, testConnections } from '@cde/server/providers/kubernetes/testing.ts';
import type { Provider, ProviderState, StepResult, WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { renderTemplate } from '@cde/server/templates/render.ts';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { agentTestImage } from '../cluster/agent-image.ts';
import { images } from '../cluster/images.ts';
import { type Snapshots, startSnapshots } from '../cluster/snapshots.ts';

/**
 * Snapshots of homes, with the real definitions and the real controller of VolumeSnapshots. Only the CSI driver is a
 * fake, `driver` below: it takes no snapshots, and says of each what a driver would.
 */

const kubeconfig = process.env.CDE_TEST_KUBECONFIG ?? join(homedir(), '.cache/cde/cluster/kubeconfig');
const driverName = `snapshots-${Date.now().toString(36)}.test.cde.dev`;
const api = 'snapshot.storage.k8s.io/v1';
const contents: KubeKind = { apiVersion: api, kind: 'VolumeSnapshotContent' };
const bound = 'snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection';

const { connections, installation } = testConnections();
let cluster: TestCluster;
let snapshots: Snapshots;
let provider: Provider;
let driver: ReturnType<typeof makeDriver>;
let aheadMs = 0;
const volumes: string[] = [];
const workspaces: Workspace[] = [];

/** What csi-snapshotter and a driver do, for contents of our driver. With `failing` no snapshot can be taken. */
function makeDriver() {
  const deleted: string[] = [];
  let failing: string | null = null;
  let ended = false;
  async function look(content: KubeObject): Promise<void> {
    const { metadata } = content;
    const spec = content.spec as { driver: string; deletionPolicy: string };
    const status = (content.status ?? {}) as { readyToUse?: boolean; snapshotHandle?: string };
    if (spec.driver !== driverName) return;
    const ref = { ...contents, name: metadata.name };
    if (metadata.deletionTimestamp) {
      if (spec.deletionPolicy === 'Delete') deleted.push(status.snapshotHandle!);
      const finalizers = (metadata as { finalizers?: string[] }).finalizers?.filter((one) => one !== bound);
      await cluster.patch(ref, { metadata: { finalizers: finalizers ?? [] } });
    } else if (!status.readyToUse)
      await cluster.patch(
        ref,
        {
          status: failing
            ? { readyToUse: false, error: { message: failing, time: new Date().toISOString() } }
            : {
                readyToUse: true,
                snapshotHandle: `snap-of-${metadata.name}`,
                creationTime: Date.now() * 1e6,
                restoreSize: 2 ** 26,
              },
        },
        'status',
      );
  }
  const run = (async () => {
    while (!ended) {
      for (const content of await cluster.list(contents).catch(() => [])) await look(content).catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  })();
  return {
    deleted,
    fail(message: string | null) {
      failing = message;
    },
    async stop() {
      ended = true;
      await run;
    },
  };
}

class Workspace {
  state: ProviderState = {};
  lines: string[] = [];
  readonly id = randomUUID();
  readonly name = `s${randomUUID().slice(0, 6)}`;
  context = { log: (text: string) => void this.lines.push(text) };
  constructor() {
    workspaces.push(this);
  }
  get namespace(): string {
    return String(this.state.namespace);
  }
  /** Its home on a volume of the driver. No node has that driver, so the pod never runs; the home is bound all the same. */
  async begin(): Promise<void> {
    await cluster.apply({
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: this.name },
      spec: {
        storageClassName: this.name,
        capacity: { storage: '64Mi' },
        accessModes: ['ReadWriteOnce'],
        persistentVolumeReclaimPolicy: 'Delete',
        csi: { driver: driverName, volumeHandle: this.name },
      },
    });
    volumes.push(this.name);
    const { template } = parseTemplate({
      'template.yaml': `name: t\nprovider: kubernetes\nhome: { size: 64Mi }\nkubernetes: { image: "${images.debian}", pullPolicy: IfNotPresent, storageClass: ${this.name} }\n`,
    });
    const workspace = { id: this.id, name: this.name, owner: 'ada' };
    const rendered = renderTemplate(template!, {}, { workspace, owner: { name: 'Ada', email: '' } });
    if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults));
    const spec: WorkspaceSpec = {
      workspaceId: this.id,
      owner: 'ada',
      name: this.name,
      template: rendered.ok,
    };
    const launch = { buildId: randomUUID(), serverUrl: 'http://127.0.0.1:9', token: 'cde_agent_test' };
    await this.#drive(
      () => provider.start(spec, launch, this.state, this.context),
      () => this.state.protectedVolume === this.name,
    );
    expect(this.state.protectedVolume).toBe(this.name);
  }
  delete = () => this.#drive(() => provider.remove(this.id, this.state, 'keep', this.context));
  async #drive(next: () => Promise<StepResult>, enough = () => false): Promise<StepResult> {
    for (;;) {
      const move = await next();
      this.state = JSON.parse(JSON.stringify(move.state)) as ProviderState;
      if (move.kind !== 'pending' || enough()) return move;
      await new Promise((resolve) => setTimeout(resolve, Math.min(move.retryAfterMs, 500)));
    }
  }
}

beforeAll(async () => {
  cluster = await openTestCluster();
  snapshots = await startSnapshots(kubeconfig);
  driver = makeDriver();
  provider = makeKubernetesProvider({
    connections,
    installation,
    agentImage: await agentTestImage(),
    log: quiet,
    now: () => new Date(Date.now() + aheadMs),
  });
  await connections.refresh();
  await vi.waitFor(() => expect(connections.get('one')?.view.synced).toBe(true), 15_000);
  await cluster.apply({
    apiVersion: api,
    kind: 'VolumeSnapshotClass',
    metadata: { name: driverName },
    driver: driverName,
    deletionPolicy: 'Delete',
  });
});
afterAll(async () => {
  for (const { namespace } of workspaces)
    if (namespace) await cluster.remove({ apiVersion: 'v1', kind: 'Namespace', name: namespace });
  for (const name of volumes) await cluster.remove({ apiVersion: 'v1', kind: 'PersistentVolume', name });
  await cluster.remove({ apiVersion: api, kind: 'VolumeSnapshotClass', name: driverName });
  await snapshots?.stop();
  await driver?.stop();
  await provider?.close();
  await connections.close();
  cluster?.close();
});

test('a retained home has a snapshot, which outlives its namespace and is deleted when it expires', async () => {
  const workspace = new Workspace();
  await workspace.begin();
  expect(await workspace.delete(), workspace.lines.join('\n')).toMatchObject({
    kind: 'done',
    homeRetained: true,
  });
  const { content } = workspace.state.snapshot as { content: string };
  expect(workspace.lines).toContain(`a snapshot of the home was taken: ${content}`);
  const ref = { ...contents, name: content };
  expect(await cluster.get({ apiVersion: 'v1', kind: 'Namespace', name: workspace.namespace })).toBeNull();
  expect(await cluster.get(ref)).toMatchObject({
    metadata: { labels: { 'cde.dev/home': 'kept', 'cde.dev/name': workspace.name, 'cde.dev/owner': 'ada' } },
    spec: { deletionPolicy: 'Retain', driver: driverName },
    status: { readyToUse: true },
  });

  await provider.purgeHomes({ retainedBefore: new Date(Date.now() - 3_600_000) });
  expect((await cluster.get(ref))?.metadata.deletionTimestamp).toBeUndefined();
  await provider.purgeHomes({ retainedBefore: new Date(Date.now() + 1_000) });
  await vi.waitFor(async () => expect(await cluster.get(ref)).toBeNull(), { timeout: 20_000, interval: 200 });
  // Not the object alone: the driver was told to delete what it stands for.
  expect(driver.deleted).toContain(`snap-of-${content}`);
});

test('a snapshot that cannot be taken does not block the deletion: the volume is retained, and the log gives the reason', async () => {
  driver.fail('the array has no room');
  try {
    const workspace = new Workspace();
    await workspace.begin();
    const deleting = workspace.delete();
    await vi.waitFor(() => expect(workspace.state.snapshot).toBeDefined(), {
      timeout: 20_000,
      interval: 100,
    });
    const snapshot = {
      apiVersion: api,
      kind: 'VolumeSnapshot',
      namespace: workspace.namespace,
      name: 'home',
    };
    await vi.waitFor(
      async () =>
        expect(await cluster.get(snapshot)).toMatchObject({
          status: { error: { message: expect.stringContaining('the array has no room') } },
        }),
      { timeout: 30_000, interval: 200 },
    );
    aheadMs = 150_000;
    expect(await deleting).toMatchObject({ kind: 'done', homeRetained: true });
    expect(workspace.lines.join('\n')).toMatch(
      /no snapshot of the home: .*the array has no room.* The volume itself is kept\./,
    );
  } finally {
    aheadMs = 0;
    driver.fail(null);
  }
});
