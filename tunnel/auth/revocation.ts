import { backoff, type Clock, systemClock } from '../clock.ts';

/** Between two questions: many sessions that begin together need one. */
const pauseMs = 500;
/** After a failure; soon enough that a suspension is heard of in time by the next server that answers. */
const maxDelayMs = 4_000;
/** The server holds a question for 25 s. An answer that is not here by then comes over a dead connection. */
const pollTimeoutMs = 40_000;

export interface RevocationWatch {
  /** To be told of each session that begins. */
  sessionOpened(userId: string): void;
}

/**
 * Asks, as long as anybody's session is here, whose may no longer be, and ends those. `ask` waits with the server until
 * there is somebody, at most for some time, or until its signal is aborted; rejects when the server is away, which decides nothing. Of a user
 * who comes new it is asked at once: a ticket is good for minutes, and its user may have been suspended since.
 */
export function watchRevocations(options: {
  users: () => string[];
  poll: (users: string[], signal: AbortSignal) => Promise<string[]>;
  revoke: (userId: string) => void;
  signal: AbortSignal;
  clock?: Clock;
}): RevocationWatch {
  const { signal, clock = systemClock } = options;
  /** Whom the question under way is about. */
  let polled = new Set<string>();
  /** Ends the question under way, or the wait for somebody. */
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
      let late = false;
      const limit = setTimeout(() => {
        late = true;
        changed.abort();
      }, pollTimeoutMs);
      limit.unref();
      try {
        for (const userId of await options.poll(users, changed.signal)) options.revoke(userId);
        failures = 0;
        await clock.sleep(pauseMs, signal);
      } catch {
        if (signal.aborted) return;
        if (changed.signal.aborted && !late) await clock.sleep(pauseMs, signal);
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
