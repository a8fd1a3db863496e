import type { Logger } from '../../../log.ts';
import { type KubeClient, KubeError } from './client.ts';
import type { ClusterRecord, ClusterSource, Connection, Connections, WatchedKind } from './connections.ts';
import { makeGrants } from './grants.ts';
import { makeKubeClient } from './kube-client.ts';
import { makeNodeView } from './node-view.ts';
import { makeView } from './view.ts';

/** How often the registry is read: another replica may have added a cluster. */
const refreshMs = 3_000;
/** How often the state of a cluster is recorded while it does not change. */
const reportMs = 30_000;
/** How often an unreachable cluster is probed. */
const probeIntervalMs = 5_000;

/** Why a cluster cannot be used, in one sentence. */
function describeFailure(error: KubeError): string {
  if (error.status === 401)
    return 'The cluster rejects the credentials (401): they were revoked or have expired.';
  if (error.status === 403) return `The credentials lack a permission: ${error.message}.`;
  return error.message;
}

/** Connections to all clusters of the registry, each with one client and one set of watches. */
export function makeConnections(options: {
  source: ClusterSource;
  installation: string;
  log: Logger;
  silentMs?: number;
}): Connections {
  const { source, installation, log } = options;
  type Live = Connection & {
    revision: number;
    record: ClusterRecord;
    state: Connection['state'];
    reason: string | null;
    version: string | null;
    close(): void;
  };
  const live = new Map<string, Live>();
  const listeners: Parameters<Connections['onChange']>[0][] = [];
  const nodeListeners: Parameters<Connections['onNode']>[0][] = [];
  let closed = false;
  let refreshing: Promise<void> | null = null;

  async function connect(record: ClusterRecord): Promise<Live> {
    let client: KubeClient;
    let failure: KubeError | null = null;
    try {
      client = await makeKubeClient(record);
    } catch (error) {
      failure = error instanceof KubeError ? error : new KubeError(String(error), { cause: error });
      client = makeFailingClient(failure);
    }
    let reportedAt = 0;
    let writing: Promise<void> | null = null;
    let probeTimer: NodeJS.Timeout | null = null;

    function report(force: boolean): void {
      // Another replica may know more.
      if (connection.state === 'connecting') return;
      if (!force && Date.now() - reportedAt < reportMs) return;
      reportedAt = Date.now();
      // In sequence, so that the newest state is written last.
      const written = (writing ?? Promise.resolve()).then(write).finally(() => {
        if (writing === written) writing = null;
      });
      writing = written;
    }

    async function write(): Promise<void> {
      try {
        await source.report(record.id, {
          state: connection.state === 'ready' ? 'ready' : 'away',
          reason: connection.reason,
          version: connection.version,
          endpoint: client.server,
        });
      } catch (error) {
        log.debug({ err: error, cluster: record.name }, 'failed to record the state of a cluster');
      }
    }

    function onWatchState(error: KubeError | null): void {
      if (closed || (live.has(record.name) && live.get(record.name) !== connection)) return;
      const state = error ? 'away' : 'ready';
      const reason = error && describeFailure(error);
      const changed = connection.state !== state || connection.reason !== reason;
      connection.state = state;
      connection.reason = reason;
      if (changed) {
        if (error) log.warn({ cluster: record.name, reason }, 'cluster unreachable');
        else log.info({ cluster: record.name }, 'cluster connected');
        // Wake the builds that wait for it.
        for (const namespace of connection.view.namespaces())
          for (const listener of listeners) listener(connection, namespace.metadata.name, 'Namespace');
      }
      report(changed);
      if (error && !probeTimer) probeTimer = setTimeout(probe, probeIntervalMs).unref();
    }

    /** The watches back off up to 30 s; this notices a recovery sooner. */
    async function probe(): Promise<void> {
      probeTimer = null;
      if (closed || connection.state === 'ready') return;
      try {
        connection.version = await client.version();
        connection.view.relist();
        nodes.relist();
      } catch (error) {
        if (error instanceof KubeError && error.unreachable) onWatchState(error);
        else connection.view.relist();
      }
      if (!closed && !probeTimer && connection.state === 'away')
        probeTimer = setTimeout(probe, probeIntervalMs).unref();
    }

    const view = makeView({
      client,
      installation,
      ...(options.silentMs !== undefined && { silentMs: options.silentMs }),
      onState: onWatchState,
    });
    const nodes = makeNodeView(client);
    const connection = {
      record,
      revision: record.revision,
      client,
      view,
      nodes,
      installation,
      grants: makeGrants(client, view),
      state: 'connecting' as Connection['state'],
      reason: null as string | null,
      version: null as string | null,
      close() {
        if (probeTimer) clearTimeout(probeTimer);
        view.stop();
        nodes.stop();
        client.close();
      },
    };
    view.onChange((namespace: string, kind: WatchedKind) => {
      report(false);
      for (const listener of listeners) listener(connection, namespace, kind);
    });
    nodes.onChange((...change) => {
      for (const listener of nodeListeners) listener(connection, ...change);
    });
    if (failure) onWatchState(failure);
    else
      client
        .version()
        .then((answer) => {
          connection.version = answer;
          report(true);
        })
        .catch(() => {});
    return connection;
  }

  async function load(): Promise<void> {
    const records = await source.list();
    for (const [name, connection] of live)
      if (!records.some((record) => record.id === connection.record.id && record.name === name)) {
        live.delete(name);
        connection.close();
      }
    for (const record of records) {
      const existing = live.get(record.name);
      if (existing?.revision === record.revision) {
        existing.record = record;
        continue;
      }
      live.delete(record.name);
      existing?.close();
      const fresh = await connect(record);
      if (closed) fresh.close();
      else live.set(record.name, fresh);
    }
  }

  function refresh(): Promise<void> {
    refreshing ??= load().finally(() => {
      refreshing = null;
    });
    return refreshing;
  }

  const timer = setInterval(() => {
    refresh().catch((error) => log.debug({ err: error }, 'failed to read the clusters'));
  }, refreshMs);
  timer.unref();

  return {
    get: (name) => live.get(name) ?? null,
    all: () => [...live.values()],
    choose(selector) {
      const all = [...live.values()];
      if (typeof selector === 'string') return live.get(selector) ?? null;
      const fitting = all.filter(
        ({ record }) =>
          !selector ||
          Object.entries(selector.labels).every(([name, value]) => labelOf(record, name) === value),
      );
      const preferred = (candidates: Live[]) =>
        candidates.find(({ record }) => record.isDefault) ?? (selector ? candidates[0] : undefined);
      // Prefer one that is reachable.
      return preferred(fitting.filter(({ state }) => state === 'ready')) ?? preferred(fitting) ?? null;
    },
    refresh,
    onChange: (listener) => void listeners.push(listener),
    onNode: (listener) => void nodeListeners.push(listener),
    async close() {
      closed = true;
      clearInterval(timer);
      await refreshing?.catch(() => {});
      for (const connection of live.values()) connection.close();
      live.clear();
    },
  };
}

const labelOf = ({ region, labels }: ClusterRecord, name: string) =>
  labels[name] ?? (name === 'region' ? region : undefined);

/** For a cluster whose credentials cannot be read: every call rejects with the reason. */
function makeFailingClient(error: KubeError): KubeClient {
  const fail = async () => {
    throw error;
  };
  return {
    server: '',
    certificateAuthority: null,
    calls: () => 0,
    apply: fail,
    get: fail,
    list: fail,
    listFrom: fail,
    create: fail,
    patch: fail,
    remove: fail,
    logs: fail,
    token: fail,
    version: fail,
    serves: fail,
    watch: fail,
    close: () => {},
  };
}
