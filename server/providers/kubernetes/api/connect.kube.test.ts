import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { makeConnections } from './connect.ts';
import type { ClusterRecord } from './connections.ts';
import { makeKubeClient } from './kube-client.ts';
import { makeView } from './view.ts';

const kubeconfig = readFileSync(
  process.env.CDE_TEST_KUBECONFIG ?? join(homedir(), '.cache/cde/cluster/kubeconfig'),
  'utf8',
);
const log = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} } as never;
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A proxy before the API server, whose connections can be cut, stalled and refused. */
async function proxied() {
  const target = new URL(/server: (\S+)/.exec(kubeconfig)![1]!);
  const sockets = new Set<net.Socket>();
  let stalled = false;
  let held: (() => void)[] | null = null;
  let refusing = false;
  const server = net.createServer((socket) => {
    if (refusing) return socket.destroy();
    const up = net.connect(Number(target.port), target.hostname);
    for (const each of [socket, up]) {
      sockets.add(each);
      each.on('error', () => {});
      each.on('close', () => {
        sockets.delete(each);
        socket.destroy();
        up.destroy();
      });
    }
    socket.on('data', (chunk) => stalled || up.write(chunk));
    up.on('data', (chunk) => (held ? held.push(() => socket.write(chunk)) : stalled || socket.write(chunk)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  cleanups.push(() => {
    cut();
    server.close();
  });
  const { port } = server.address() as net.AddressInfo;
  return {
    // The certificate is for the API server's own name.
    text: kubeconfig.replace(
      /server: \S+/,
      `server: https://127.0.0.1:${port}\n    tls-server-name: ${target.hostname}`,
    ),
    cut,
    /** Keeps what the cluster says, for as long as `work` takes. */
    async hold<T>(work: () => Promise<T>): Promise<T> {
      const kept: (() => void)[] = [];
      held = kept;
      try {
        return await work();
      } finally {
        held = null;
        for (const write of kept) write();
      }
    },
    stall: (on: boolean) => {
      stalled = on;
    },
    refuse: (on: boolean) => {
      refusing = on;
      if (on) cut();
    },
  };
}

function connected(
  text: string,
  silentMs?: number,
  slow: (written: number) => Promise<void> = async () => {},
) {
  const installation = `t${randomUUID().slice(0, 8)}`;
  const record: ClusterRecord = {
    id: 'c1',
    name: 'one',
    region: 'eu',
    labels: { gpu: 'no' },
    isDefault: true,
    credentials: { kind: 'kubeconfig', text },
    publicEndpoint: null,
    revision: 1,
  };
  const reports: string[] = [];
  const connections = makeConnections({
    installation,
    log,
    ...(silentMs && { silentMs }),
    source: {
      list: async () => [record],
      report: async (_id, { state, reason }) => {
        await slow(reports.length);
        reports.push(`${state}${reason ? `: ${reason}` : ''}`);
      },
    },
  });
  cleanups.push(() => connections.close());
  return { connections, installation, reports, record };
}

async function namespace(installation: string) {
  const name = `connect-${randomUUID().slice(0, 8)}`;
  const client = await makeKubeClient({ name: 'x', credentials: { kind: 'kubeconfig', text: kubeconfig } });
  const object = {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name, labels: { 'cde.dev/installation': installation } },
  };
  await client.apply(object);
  cleanups.push(async () => {
    await client.remove({ apiVersion: 'v1', kind: 'Namespace', name });
    client.close();
  });
  return name;
}

test('the newest state of a cluster is recorded, and nothing while it is unknown', async () => {
  const proxy = await proxied();
  let release: () => void = () => {};
  const first = new Promise<void>((resolve) => {
    release = resolve;
  });
  // The database takes its time over the first: what follows must not overtake it.
  const { connections, reports } = connected(proxy.text, undefined, (written) =>
    written === 0 ? first : Promise.resolve(),
  );
  await connections.refresh();
  await vi.waitFor(() => expect(connections.get('one')).toMatchObject({ state: 'ready' }), 10_000);
  proxy.refuse(true);
  await vi.waitFor(() => expect(connections.get('one')!.state).toBe('away'), 20_000);
  proxy.refuse(false);
  await vi.waitFor(() => expect(connections.get('one')!.state).toBe('ready'), 20_000);
  expect(reports).toEqual([]);
  release();
  await vi.waitFor(() => expect(reports.length).toBeGreaterThan(1), 5_000);
  expect(reports.at(-1)).toBe('ready');
  expect(reports).not.toContain('away');
});

test('calls: apply, get, patch, conflict, remove, token, logs of a missing pod', async () => {
  const client = await makeKubeClient({ name: 'x', credentials: { kind: 'kubeconfig', text: kubeconfig } });
  cleanups.push(() => client.close());
  const name = await namespace(`t${randomUUID().slice(0, 8)}`);
  const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'm', namespace: name } };
  const ref = { apiVersion: 'v1', kind: 'ConfigMap', namespace: name, name: 'm' };
  expect(await client.get(ref)).toBeNull();
  await client.apply({ ...map, data: { a: '1' } });
  // What we patched ourselves is no conflict for our next apply.
  await client.patch(ref, { data: { a: '2' } });
  expect(await client.apply({ ...map, data: { a: '3' } })).toMatchObject({ data: { a: '3' } });
  expect(await client.apply({ ...map, data: { a: '4' } }, { dryRun: true })).toMatchObject({
    data: { a: '4' },
  });
  expect(await client.get(ref)).toMatchObject({ data: { a: '3' } });
  expect(
    (await client.list({ apiVersion: 'v1', kind: 'ConfigMap', namespace: name })).map(
      (each) => each.metadata.name,
    ),
  ).toContain('m');
  await vi.waitFor(async () => {
    const { token, expiresAt } = await client.token(name, 'default', 600);
    expect(token.split('.')).toHaveLength(3);
    expect(expiresAt.getTime()).toBeGreaterThan(Date.now());
  });
  expect(await client.serves('apps/v1', 'Deployment')).toBe(true);
  expect(await client.serves('snapshot.storage.k8s.io/v9', 'VolumeSnapshot')).toBe(false);
  await expect(client.get({ apiVersion: 'nope/v1', kind: 'Nope', name: 'x' })).rejects.toMatchObject({
    reason: 'NoSuchKind',
  });
  await expect(
    client.apply({ ...map, metadata: { ...map.metadata, name: 'Not Valid' } }),
  ).rejects.toMatchObject({ status: 422, unreachable: false });
  expect(await client.remove(ref)).toBe(true);
  expect(await client.remove(ref)).toBe(false);
});

test.each([
  [
    'runs a program',
    (text: string) =>
      text.replace(
        /user:\n(.*\n)*/,
        'user:\n    exec: { apiVersion: client.authentication.k8s.io/v1, command: touch, args: [/tmp/x] }\n',
      ),
  ],
  [
    'names a file',
    (text: string) => text.replace(/certificate-authority-data: \S+/, 'certificate-authority: /etc/passwd'),
  ],
  ['is no kubeconfig', () => ': : :'],
])('a kubeconfig that %s is refused', async (_what, change) => {
  const text = change(kubeconfig);
  expect(text).not.toBe(kubeconfig);
  await expect(
    makeKubeClient({ name: 'x', credentials: { kind: 'kubeconfig', text } }),
  ).rejects.toMatchObject({ reason: 'BadCredentials' });
});

test('changes are seen at once, also after a disconnect', async () => {
  const proxy = await proxied();
  const { connections, installation } = connected(proxy.text);
  await connections.refresh();
  const { view } = connections.get('one')!;
  await vi.waitFor(() => expect(view.synced).toBe(true), 10_000);
  const first = await namespace(installation);
  await vi.waitFor(() => expect(view.get('Namespace', '', first)).not.toBeNull(), 5_000);
  proxy.cut();
  const second = await namespace(installation);
  await vi.waitFor(() => expect(view.get('Namespace', '', second)).not.toBeNull(), 10_000);
  expect(view.namespaces()).toHaveLength(2);
});

test('a watch that stalls silently is detected and restarted', async () => {
  const proxy = await proxied();
  const { connections, installation } = connected(proxy.text, 2_000);
  await connections.refresh();
  const { view } = connections.get('one')!;
  await vi.waitFor(() => expect(view.synced).toBe(true), 10_000);
  proxy.stall(true);
  const name = await namespace(installation);
  expect(view.get('Namespace', '', name)).toBeNull();
  await vi.waitFor(() => expect(connections.get('one')!.state).toBe('away'), 40_000);
  proxy.stall(false);
  proxy.cut();
  await vi.waitFor(() => expect(view.get('Namespace', '', name)).not.toBeNull(), 30_000);
  await vi.waitFor(() => expect(connections.get('one')!.state).toBe('ready'), 30_000);
});

test('a cluster that refuses connections is unreachable, with the reason, and is noticed soon after it returns', async () => {
  const proxy = await proxied();
  const { connections, reports } = connected(proxy.text);
  await connections.refresh();
  const connection = connections.get('one')!;
  await vi.waitFor(
    () => expect(connection).toMatchObject({ state: 'ready', view: { synced: true } }),
    10_000,
  );
  proxy.refuse(true);
  await vi.waitFor(() => expect(connection.state).toBe('away'), 20_000);
  expect(connection.reason).toMatch(/cannot be reached/);
  // What was known stays known: nothing is judged lost.
  expect(connection.view.synced).toBe(true);
  proxy.refuse(false);
  await vi.waitFor(() => expect(connection.state).toBe('ready'), 20_000);
  await vi.waitFor(() => expect(reports.at(-1)).toBe('ready'));
  expect(reports.some((report) => report.startsWith('away: '))).toBe(true);
});

test('there is one watch per kind, independent of the number of namespaces', async () => {
  const { connections, installation } = connected(kubeconfig);
  await connections.refresh();
  const { view, client } = connections.get('one')!;
  await vi.waitFor(() => expect(view.synced).toBe(true), 10_000);
  const before = client.calls();
  const names = await Promise.all(Array.from({ length: 30 }, () => namespace(installation)));
  await vi.waitFor(() => expect(view.namespaces()).toHaveLength(names.length), 10_000);
  expect(client.calls()).toBe(before);
  // Ten kinds of objects and the nodes, each listed and watched; and the version.
  expect(before).toBeLessThanOrEqual(23);
});

test('a repeated list reports only what changed', async () => {
  const client = await makeKubeClient({ name: 'x', credentials: { kind: 'kubeconfig', text: kubeconfig } });
  const installation = `relist-${Date.now().toString(36)}`;
  const [stays, goes] = [await namespace(installation), await namespace(installation)];
  let lists = 0;
  const view = makeView({
    installation,
    onState: () => {},
    client: {
      watch: client.watch,
      listFrom(kind) {
        lists++;
        return client.listFrom(kind);
      },
    },
  });
  cleanups.push(async () => {
    view.stop();
    client.close();
  });
  await vi.waitFor(() => expect(view.synced).toBe(true), 10_000);
  const told: string[] = [];
  view.onChange((name, kind) => void (kind === 'Namespace' && told.push(name)));
  const first = lists;
  await client.patch(
    { apiVersion: 'v1', kind: 'Namespace', name: goes },
    { metadata: { labels: { 'cde.dev/installation': null } } },
  );
  view.relist();
  const comes = await namespace(installation);
  await vi.waitFor(() => {
    expect(lists).toBeGreaterThanOrEqual(2 * first);
    expect(view.get('Namespace', '', goes)).toBeNull();
    expect(view.get('Namespace', '', comes)).not.toBeNull();
  }, 10_000);
  expect(told).toEqual(expect.arrayContaining([goes, comes]));
  expect(told).not.toContain(stays);
});

test('our own writes and counters are stored without waking anybody', async () => {
  const proxy = await proxied();
  const { connections, installation } = connected(proxy.text);
  await connections.refresh();
  const { view } = connections.get('one')!;
  const client = await makeKubeClient({ name: 'x', credentials: { kind: 'kubeconfig', text: kubeconfig } });
  cleanups.push(() => client.close());
  await vi.waitFor(() => expect(view.synced).toBe(true), 10_000);
  const told: string[] = [];
  view.onChange((_namespace, kind) => void told.push(kind));
  const quotasTold = () => told.filter((kind) => kind === 'ResourceQuota').length;
  const name = await namespace(installation);
  const meta = { namespace: name, labels: { 'cde.dev/installation': installation } };
  const quota = { apiVersion: 'v1', kind: 'ResourceQuota', metadata: { ...meta, name: 'q' } };
  const seen = () => {
    const found = view.get('ResourceQuota', name, 'q');
    return { hard: found?.spec?.hard?.secrets, used: found?.status?.used?.secrets };
  };
  await client.apply({ ...quota, spec: { hard: { secrets: '9' } } });
  // Of somebody else it is news; its counters, which the cluster fills in, are not.
  await vi.waitFor(() => expect(seen()).toEqual({ hard: '9', used: '0' }), 10_000);
  expect(quotasTold()).toBe(1);
  await client.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { ...meta, name: 's' } });
  await vi.waitFor(() => expect(seen()).toEqual({ hard: '9', used: '1' }), 10_000);
  expect(quotasTold()).toBe(1);
  const ref = { apiVersion: 'v1', kind: 'ResourceQuota', namespace: name, name: 'q' };
  await client.patch(ref, { spec: { hard: { secrets: '8' } } });
  await vi.waitFor(() => expect(seen()).toMatchObject({ hard: '8' }), 10_000);
  expect(quotasTold()).toBe(2);
  // Else the watch may be quicker than the answer.
  await proxy.hold(async () => view.upsert(await client.patch(ref, { spec: { hard: { secrets: '7' } } })));
  expect(seen()).toMatchObject({ hard: '7' });
  // That it has come round by the watch too is seen by what comes after it.
  await client.remove(ref);
  await vi.waitFor(() => expect(view.get('ResourceQuota', name, 'q')).toBeNull(), 10_000);
  expect(quotasTold()).toBe(3);
});

test('a template selects a cluster by name or label, or gets the default', async () => {
  const { connections, record } = connected(kubeconfig);
  await connections.refresh();
  expect(connections.choose(undefined)?.record.name).toBe('one');
  expect(connections.choose('one')?.record.name).toBe('one');
  expect(connections.choose('two')).toBeNull();
  expect(connections.choose({ labels: { region: 'eu', gpu: 'no' } })?.record.name).toBe('one');
  expect(connections.choose({ labels: { gpu: 'yes' } })).toBeNull();
  record.isDefault = false;
  expect(connections.choose(undefined)).toBeNull();
});
