import type { Logger } from '../../../log.ts';
import { type KubeClient, KubeError } from './client.ts';
import type { ClusterRecord, ClusterSource, Connection, Connections, WatchedKind } from './connections.ts';
import { makeGrants } from './grants.ts';
import { makeKubeClient } from './kube-client.ts';
import { makeView } from './view.ts';

/** How often the registry is read again: another replica may have added a cluster. */
const refreshMs = 3_000;
/** How often what is known of a cluster is written down, when nothing changes. */
const reportMs = 30_000;
/** How often a cluster that is away is asked whether it is back. */
const probeIntervalMs = 5_000;

/** What a cluster's refusal means, in one sentence. */
export function describeFailure(error: KubeError): string {
  if (error.status === 401)
    return 'The cluster does not accept the credentials (401): they were revoked, or have expired.';
  if (error.status === 403) return `The credentials lack a permission: ${error.message}.`;
  return error.message;
}

/** Connections to all clusters of the registry: one client and one set of watches each. */
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
      // Nothing is known yet; another replica may know better.
      if (connection.state === 'connecting') return;
      if (!force && Date.now() - reportedAt < reportMs) return;
      reportedAt = Date.now();
      // One after the other: what is written last has to be what came last.
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
        log.debug({ err: error, cluster: record.name }, 'the state of a cluster was not written');
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
        if (error) log.warn({ cluster: record.name, reason }, 'a cluster is away');
        else log.info({ cluster: record.name }, 'a cluster is connected');
        // Who waits for it looks again.
        for (const namespace of connection.view.namespaces())
          for (const listener of listeners) listener(connection, namespace.metadata.name, 'Namespace');
      }
      report(changed);
      if (error && !probeTimer) probeTimer = setTimeout(probe, probeIntervalMs).unref();
    }

    /** The watches' own waits grow to half a minute; a cluster that is back is noticed sooner. */
    async function probe(): Promise<void> {
      probeTimer = null;
      if (closed || connection.state === 'ready') return;
      try {
        connection.version = await client.version();
        connection.view.relist();
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
    const connection = {
      record,
      revision: record.revision,
      client,
      view,
      installation,
      grants: makeGrants(client, view),
      state: 'connecting' as Connection['state'],
      reason: null as string | null,
      version: null as string | null,
      close() {
        if (probeTimer) clearTimeout(probeTimer);
        view.stop();
        client.close();
      },
    };
    view.onChange((namespace: string, kind: WatchedKind) => {
      report(false);
      for (const listener of listeners) listener(connection, namespace, kind);
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
    refresh().catch((error) => log.debug({ err: error }, 'the clusters could not be read'));
  }, refreshMs);
  timer.unref();

  return {
    get: (name) => live.get(name) ?? null,
    all: () => [...live.values()],
    choose(wanted) {
      const all = [...live.values()];
      if (typeof wanted === 'string') return live.get(wanted) ?? null;
      const fitting = all.filter(
        ({ record }) =>
          !wanted || Object.entries(wanted.labels).every(([name, value]) => labelOf(record, name) === value),
      );
      const preferred = (candidates: Live[]) =>
        candidates.find(({ record }) => record.isDefault) ?? (wanted ? candidates[0] : undefined);
      // Of several that fit, one that answers.
      return preferred(fitting.filter(({ state }) => state === 'ready')) ?? preferred(fitting) ?? null;
    },
    refresh,
    onChange: (listener) => void listeners.push(listener),
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

/** Of a cluster whose credentials cannot even be read: every call says so. */
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
