import { backoff, type Clock, systemClock } from './clock.ts';

/** Between two questions: many sessions that begin together need one. */
const restMs = 500;
/** After a failure; soon enough that a suspension is heard of in time by the next server that answers. */
const longestPauseMs = 4_000;
/** The server holds a question for 25 s. An answer that is not here by then comes over a dead connection. */
const answerMs = 40_000;

export interface UserWatch {
  /** To be told of each session that begins. */
  began(userId: string): void;
}

/**
 * Asks, as long as anybody's session is here, whose may no longer be, and ends those. `ask` waits with the server until
 * there is somebody, at most for some time, or until its signal is aborted; rejects when the server is away, which decides nothing. Of a user
 * who comes new it is asked at once: a ticket is good for minutes, and its user may have been suspended since.
 */
export function watchUsers(options: {
  users: () => string[];
  ask: (users: string[], signal: AbortSignal) => Promise<string[]>;
  end: (userId: string) => void;
  signal: AbortSignal;
  clock?: Clock;
}): UserWatch {
  const { signal, clock = systemClock } = options;
  /** Whom the question under way is about. */
  let asked = new Set<string>();
  /** Ends the question under way, or the wait for somebody. */
  let interrupt = () => {};
  signal.addEventListener('abort', () => interrupt(), { once: true });

  async function run(): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      const users = options.users();
      asked = new Set(users);
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
      }, answerMs);
      limit.unref();
      try {
        for (const userId of await options.ask(users, changed.signal)) options.end(userId);
        failures = 0;
        await clock.sleep(restMs, signal);
      } catch {
        if (signal.aborted) return;
        if (changed.signal.aborted && !late) await clock.sleep(restMs, signal);
        else await clock.sleep(backoff(++failures, clock.random, longestPauseMs), signal);
      } finally {
        clearTimeout(limit);
      }
    }
  }
  void run();
  return {
    began(userId) {
      if (!asked.has(userId)) interrupt();
    },
  };
}
