import { type Clock, systemClock } from '../clock.ts';
import { TunnelError } from '../errors.ts';

/**
 * A ticket is valid for minutes, and its user may have been suspended since it was issued. So the agent checks with the
 * server before the first stream of a session, while the client finishes its handshake.
 */
export interface AccessCheck {
  /** Rejects with `access-ended` if the user's access was revoked. */
  check(userId: string): Promise<void>;
  /** Call when a client connects. It is identified only after its handshake, so this checks recent users in advance. */
  prefetch(): void;
}

/**
 * Timeout for the server, after which the ticket alone decides, as it does when the server is unreachable: sessions do
 * not depend on the server. watchRevocations ends the session once the server answers again.
 */
const timeoutMs = 2_000;
/** Maximum age of a prefetched answer, which covers a handshake over a slow line. */
const maxAgeMs = 2_000;
/** Users checked in advance. */
const maxRecent = 16;

interface Answer {
  users: Set<string>;
  askedAt: number;
  ended: Promise<string[]>;
}

/** `ask` returns the users whose access was revoked, without waiting. */
export function makeAccessCheck(options: {
  ask: (users: string[], signal: AbortSignal) => Promise<string[]>;
  /** Called when the server stops answering, and sessions open on their tickets alone. */
  onUnavailable?: (error: unknown) => void;
  clock?: Clock;
}): AccessCheck {
  const { clock = systemClock } = options;
  /** Most recent last. */
  const recent = new Set<string>();
  let latest: Answer | undefined;
  let answers = true;

  function ask(users: string[]): Answer {
    const limit = new AbortController();
    const ended = Promise.race([
      options.ask(users, limit.signal),
      clock.sleep(timeoutMs, limit.signal).then(() => {
        throw new Error(`no answer within ${timeoutMs / 1000} s`);
      }),
    ]).finally(() => limit.abort());
    ended.catch(() => {});
    return { users: new Set(users), askedAt: clock.now(), ended };
  }

  return {
    prefetch() {
      if (recent.size > 0) latest = ask([...recent]);
    },
    async check(userId) {
      const usable = latest?.users.has(userId) && clock.now() - latest.askedAt <= maxAgeMs;
      const answer = usable ? latest! : ask([userId]);
      recent.delete(userId);
      recent.add(userId);
      const [oldest] = recent;
      if (recent.size > maxRecent) recent.delete(oldest!);
      let ended: string[] = [];
      try {
        ended = await answer.ended;
        answers = true;
      } catch (error) {
        if (answers) options.onUnavailable?.(error);
        answers = false;
      }
      if (ended.includes(userId)) throw new TunnelError('access-ended');
    },
  };
}
