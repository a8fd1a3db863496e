import { backoff, type Clock, systemClock } from '../clock.ts';

/** Between two polls, so that sessions that open together share one. */
const pauseMs = 500;
/** Backoff after failures; short, so that the next server that answers reports revocations in time. */
const maxDelayMs = 4_000;
/** The server holds a poll for 25 s. If there is no answer by then, the connection is dead. */
const pollTimeoutMs = 40_000;

export interface RevocationWatch {
  /** Call when a session opens. */
  sessionOpened(userId: string): void;
}

/**
 * Long-polls the server for revoked users while there are sessions, and ends theirs. `poll` resolves when a user is
 * revoked or after a while, and rejects if the server is unreachable, which revokes nobody. A new user is polled for at
 * once: a ticket is valid for minutes, and its user may have been suspended since it was issued.
 */
export function watchRevocations(options: {
  users: () => string[];
  poll: (users: string[], signal: AbortSignal) => Promise<string[]>;
  revoke: (userId: string) => void;
  signal: AbortSignal;
  clock?: Clock;
}): RevocationWatch {
  const { signal, clock = systemClock } = options;
  /** The users in the current poll. */
  let polled = new Set<string>();
  /** Ends the current poll, or the wait for a first session. */
  let interrupt = () => {};
  signal.addEventListener('abort', () => interrupt(), { once: true });

  async function run(): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      const users = options.users();
      polled = new Set(users);
      const changed = new AbortController();
      interrupt = () => changed.abort();
      if (users.length === 0) {
        await new Promise<void>((resolve) => {
          changed.signal.addEventListener('abort', () => resolve(), { once: true });
        });
        continue;
      }
      let timedOut = false;
      const limit = setTimeout(() => {
        timedOut = true;
        changed.abort();
      }, pollTimeoutMs);
      limit.unref();
      try {
        for (const userId of await options.poll(users, changed.signal)) options.revoke(userId);
        failures = 0;
        await clock.sleep(pauseMs, signal);
      } catch {
        if (signal.aborted) return;
        if (changed.signal.aborted && !timedOut) await clock.sleep(pauseMs, signal);
        else await clock.sleep(backoff(++failures, clock.random, maxDelayMs), signal);
      } finally {
        clearTimeout(limit);
      }
    }
  }
  void run();
  return {
    sessionOpened(userId) {
      if (!polled.has(userId)) interrupt();
    },
  };
}
