import { type Clock, systemClock } from '../clock.ts';
import { TunnelError } from '../errors.ts';

/**
 * A ticket is good for minutes, and its user may have been suspended since. So the agent asks the server before the
 * first stream of a session, while the client finishes its handshake.
 */
export interface AccessCheck {
  /** Rejects with `access-ended` when the user may no longer have sessions. */
  check(userId: string): Promise<void>;
  /** A client has come, who it is will be known after its handshake: asks about those who were here lately. */
  prefetch(): void;
}

/**
 * How long the server may take. Then the ticket alone decides, as it does when the server is away: sessions do not
 * depend on the server, and watchRevocations ends this one as soon as the server answers again.
 */
const timeoutMs = 2_000;
/** How old an answer may be that was asked for in advance: a handshake over a slow line. */
const maxAgeMs = 2_000;
/** How many users are asked about in advance. */
const maxRecent = 16;

interface Answer {
  users: Set<string>;
  askedAt: number;
  ended: Promise<string[]>;
}

/** `ask` gives those of the users who may have no sessions; at once. */
export function makeAccessCheck(options: {
  ask: (users: string[], signal: AbortSignal) => Promise<string[]>;
  /** Told when the server does not say (any more), so that sessions begin on their tickets alone. */
  onUnavailable?: (error: unknown) => void;
  clock?: Clock;
}): AccessCheck {
  const { clock = systemClock } = options;
  /** Latest last. */
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
