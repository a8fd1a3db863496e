import { randomUUID } from 'node:crypto';
import pg from 'pg';
import type { Logger } from '../log.ts';

/** Something changed. Carries only ids; subscribers read the current state themselves. */
export interface Change {
  workspaceId: string;
  /** Set when this build or its log changed. */
  buildId?: string;
}

export interface Bus {
  publish(change: Change): void;
  /** Returns a function that unsubscribes. `onGap` is called when changes of other replicas may have been missed. */
  subscribe(onChange: (change: Change) => void, onGap?: () => void): () => void;
  /** Announces at once, on all replicas, that a user was suspended or deleted. */
  publishRevocation(userId: string): void;
  /** Returns a function that unsubscribes. */
  subscribeRevocations(onRevoked: (userId: string) => void): () => void;
  start(): Promise<void>;
  close(): Promise<void>;
}

const changeChannel = 'cde_changes';
/** A separate channel, because replicas of an earlier release would not understand these messages on the other. */
const revocationChannel = 'cde_users';
/** NOTIFY takes a database-wide lock at commit, so each replica sends at most one batch per 50 ms. */
const batchIntervalMs = 50;
/** PostgreSQL rejects payloads of 8,000 bytes or more. */
const maxBatchSize = 80;

/** Delivers changes within this replica immediately, and to other replicas by batched NOTIFY. */
export function makeBus(options: { url: string; pool: pg.Pool; log: Logger }): Bus {
  const { pool, log } = options;
  const self = randomUUID();
  const subscribers = new Set<{ onChange: (change: Change) => void; onGap?: () => void }>();
  const revocationListeners = new Set<(userId: string) => void>();
  let pending = new Map<string, Change>();
  let timer: NodeJS.Timeout | null = null;
  let listener: pg.Client | null = null;
  let closed = false;
  let retry: NodeJS.Timeout | null = null;

  const deliver = (change: Change) => {
    for (const { onChange } of subscribers) onChange(change);
  };

  async function flush(): Promise<void> {
    timer = null;
    const changes = [...pending.values()];
    pending = new Map();
    for (let at = 0; at < changes.length; at += maxBatchSize) {
      const batch = changes
        .slice(at, at + maxBatchSize)
        .map(({ workspaceId, buildId }) => (buildId ? [workspaceId, buildId] : [workspaceId]));
      // If a batch is lost, other replicas update later: they also poll.
      await pool
        .query('SELECT pg_notify($1, $2)', [changeChannel, JSON.stringify([self, batch])])
        .catch((error) => log.debug({ err: error }, 'could not notify other replicas of changes'));
    }
  }

  async function listen(first: boolean): Promise<void> {
    if (closed) return;
    const client = new pg.Client({
      connectionString: options.url,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      connectionTimeoutMillis: 5_000,
    });
    let hasEnded = false;
    const reconnect = () => {
      if (hasEnded) return;
      hasEnded = true;
      listener = null;
      client.end().catch(() => {});
      if (!closed) retry = setTimeout(() => void listen(false), 500);
    };
    client.on('error', reconnect);
    client.on('end', reconnect);
    client.on('notification', ({ channel: on, payload }) => {
      if (on === revocationChannel) {
        const [from, userId] = JSON.parse(payload ?? '[]') as [string, string];
        if (from !== self) for (const listener of revocationListeners) listener(userId);
        return;
      }
      const [from, batch] = JSON.parse(payload ?? '[]') as [string, [string, string?][]];
      if (from === self) return;
      for (const [workspaceId, buildId] of batch)
        deliver(buildId ? { workspaceId, buildId } : { workspaceId });
    });
    try {
      await client.connect();
      await client.query(`LISTEN ${changeChannel}; LISTEN ${revocationChannel}`);
      listener = client;
      if (!first) for (const { onGap } of subscribers) onGap?.();
    } catch (error) {
      log.debug({ err: error }, 'cannot listen for changes yet');
      reconnect();
    }
  }

  return {
    publish(change) {
      deliver(change);
      pending.set(`${change.workspaceId}/${change.buildId ?? ''}`, change);
      timer ??= setTimeout(() => void flush(), batchIntervalMs);
    },
    subscribe(onChange, onGap) {
      const subscriber = { onChange, ...(onGap && { onGap }) };
      subscribers.add(subscriber);
      return () => subscribers.delete(subscriber);
    },
    publishRevocation(userId) {
      for (const listener of revocationListeners) listener(userId);
      // If it is lost, other replicas notice a few seconds later: they also poll.
      pool
        .query('SELECT pg_notify($1, $2)', [revocationChannel, JSON.stringify([self, userId])])
        .catch((error) => log.debug({ err: error }, 'could not notify other replicas of a revocation'));
    },
    subscribeRevocations(onRevoked) {
      revocationListeners.add(onRevoked);
      return () => revocationListeners.delete(onRevoked);
    },
    start: () => listen(true),
    async close() {
      closed = true;
      if (retry) clearTimeout(retry);
      if (timer) {
        clearTimeout(timer);
        await flush();
      }
      await listener?.end().catch(() => {});
    },
  };
}
