import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash } from 'node:crypto';
import { flushCompileCache } from 'node:module';
import { readConfig } from '@cde/server/config.ts';
import { startControlPlane } from '@cde/server/control-plane.ts';
import { openDatabase } from '@cde/server/database/pool.ts';
import { loadKeys } from '@cde/server/identity/keys.ts';
import { makeClusterStore } from '@cde/server/kubernetes/clusters/store.ts';
import { makeLog } from '@cde/server/log.ts';
import type { KubeClient } from '@cde/server/providers/kubernetes/api/client.ts';
import { makeConnections } from '@cde/server/providers/kubernetes/api/connect.ts';
import type { Connection, Connections } from '@cde/server/providers/kubernetes/api/connections.ts';
import { makeKubernetesProvider } from '@cde/server/providers/kubernetes/provider.ts';
import type { Provider } from '@cde/server/providers/provider.ts';

/**
 * A real replica on a real cluster. HANG_AT names workspaces by their ids, and after how many changes of objects on the
 * cluster (0: before the first) it hangs in a move of each until the test kills it. SILENT_MS shortens the time after which
 * a silent watch is replaced. With AHEAD_MS its clock is ahead. Reports to the test by IPC.
 */
const log = makeLog(process.env.CDE_LOG_LEVEL ?? 'silent');
const config = readConfig([], process.env);
const database = openDatabase(config.databaseUrl!, { max: 10 + 2 * config.concurrency });
// A start must not fail because the machine is busy.
database.pool.options.connectionTimeoutMillis = 60_000;
const { HANG_AT: hangAt, SILENT_MS: silentMs, AHEAD_MS: aheadMs } = process.env;

const own = hangAt !== undefined || silentMs !== undefined ? await ownProvider() : undefined;
const server = await startControlPlane({
  config,
  database,
  log,
  ...(aheadMs && { now: () => new Date(Date.now() + Number(aheadMs)) }),
  ...(own && { providers: new Map([['kubernetes', own]]) }),
});
process.send!({ ready: server.url });
// Otherwise only a process that ends by itself writes it.
flushCompileCache();
process.on('disconnect', () => process.exit(0));

async function ownProvider(): Promise<Provider> {
  const keys = await loadKeys(database, config.dataDir, config.secretKey);
  const clusters = makeClusterStore({ database, keys, now: () => new Date() });
  const installation = createHash('sha256').update(keys.tickets.publicKey).digest('hex').slice(0, 12);
  const connections = makeConnections({
    source: clusters.source,
    installation,
    log,
    ...(silentMs && { silentMs: Number(silentMs) }),
  });
  await connections.refresh();

  const hangsAt = new Map<string, number>(Object.entries(JSON.parse(hangAt ?? '{}')));
  /** Set during a move of a workspace that is to hang. */
  const moving = new AsyncLocalStorage<string>();
  const changes = new Map<string, number>();
  async function hang(id: string): Promise<void> {
    if (changes.get(id) !== hangsAt.get(id)) return;
    process.send!({ hung: id });
    await new Promise(() => {});
  }
  const changing = <A extends unknown[], T>(call: (...args: A) => Promise<T>) => {
    return async (...args: A): Promise<T> => {
      const id = moving.getStore();
      if (id === undefined) return call(...args);
      await hang(id);
      const result = await call(...args);
      changes.set(id, changes.get(id)! + 1);
      await hang(id);
      return result;
    };
  };
  const clients = new WeakMap<KubeClient, KubeClient>();
  const hanging = (connection: Connection): Connection => {
    const { client } = connection;
    if (!clients.has(client))
      clients.set(client, {
        ...client,
        calls: () => client.calls(),
        apply: changing(client.apply),
        create: changing(client.create),
        patch: changing(client.patch),
        remove: changing(client.remove),
      });
    // A proxy, because the state of a connection changes.
    return new Proxy(connection, {
      get: (target, key) => (key === 'client' ? clients.get(client) : Reflect.get(target, key)),
    });
  };
  const orNull = (connection: Connection | null) => connection && hanging(connection);
  const hangable: Connections = {
    ...connections,
    get: (name) => orNull(connections.get(name)),
    all: () => connections.all().map(hanging),
    choose: (wanted) => orNull(connections.choose(wanted)),
  };
  const real = makeKubernetesProvider({
    connections: hangable,
    installation,
    agentImage: config.agentImage,
    log,
  });
  const within = <T>(id: string, move: () => Promise<T>) => {
    if (!hangsAt.has(id)) return move();
    if (!changes.has(id)) changes.set(id, 0);
    return moving.run(id, move);
  };
  return {
    ...real,
    start: (...args) => within(args[0].workspaceId, () => real.start(...args)),
    stop: (...args) => within(args[0], () => real.stop(...args)),
    remove: (...args) => within(args[0], () => real.remove(...args)),
  };
}
