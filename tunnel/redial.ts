import type { TicketReply } from '@cde/api/workspaces.ts';
import { backoff, type Clock, systemClock } from './clock.ts';
import { TunnelError } from './errors.ts';
import { makeLink } from './link.ts';
import type { Path } from './path.ts';
import { dialRelay } from './paths/relay.ts';
import type { SocketTimes } from './paths/socket.ts';
import type { Pipe } from './pipe.ts';
import { askToResume, type ResumeSecret } from './resume.ts';

export interface RedialOptions extends Pick<TicketReply, 'ticket' | 'agentKey' | 'satellites'>, SocketTimes {
  /**
   * Gets a fresh ticket, for as often as the one at hand may not do. A TunnelError that it rejects with ends
   * the session (`workspace-stopped`, `ticket-refused`, …); after any other it is asked again later.
   */
  renewTicket: () => Promise<Pick<TicketReply, 'ticket' | 'agentKey' | 'satellites'>>;
  /** How long to look for a path before the session ends with `session-abandoned`; default 8 h. */
  waitMs?: number;
  /**
   * `lost`: the path broke, and why. `resumed`: it goes on over another, after so many milliseconds. The
   * reason is that of the loss both times.
   */
  onPath?: (state: 'lost' | 'resumed', reason: TunnelError, afterMs: number) => void;
  handshakeTimeoutMs?: number;
  clock?: Clock;
  /** Opens a path to the agent; dialRelay, except in tests. */
  dial?: (options: { url: string; ticket: string; signal: AbortSignal } & SocketTimes) => Promise<Path>;
}

/** As long as the agent waits by default. */
export const defaultWaitMs = 8 * 3600_000;

/** A person sits before it: no longer pause than this between two attempts. */
const longestPauseMs = 5_000;

/** A path that lived this long was good: the next is dialled at once. Else a bad one would be dialled in a loop. */
const provenAfterMs = 5_000;

/**
 * Lets the pipe of a client's session outlive its path: dials again at once, then with growing pauses, until
 * the session goes on or is over. `ended` gets the reason when it is; `known` tells whether the agent has
 * ever accepted it.
 */
export function redialPaths(
  pipe: Pipe,
  secret: ResumeSecret,
  options: RedialOptions & { ended: (error: TunnelError) => void; known: () => boolean },
): void {
  const { clock = systemClock, dial = dialRelay } = options;
  const over = new AbortController();
  let { ticket, satellites } = options;
  let failures = 0;
  let foundAt = clock.now();
  pipe.once('close', () => over.abort());
  pipe.survive({ waitMs: options.waitMs ?? defaultWaitMs, lost: (reason) => void redial(reason) });

  async function redial(reason: TunnelError): Promise<void> {
    const lostAt = clock.now();
    failures = lostAt - foundAt < provenAfterMs ? failures + 1 : 0;
    // A process must not end for want of anything to do while it waits.
    const hold = setInterval(() => {}, 2 ** 30);
    try {
      options.onPath?.('lost', reason, 0);
      for (let attempt = 0; ; attempt++, failures++) {
        if (failures > 0) await clock.sleep(backoff(failures, clock.random, longestPauseMs), over.signal);
        if (over.signal.aborted) return;
        if (attempt > 0 && !(await renew())) return;
        for (const { url } of satellites) {
          if (await resumeOver(url, reason)) {
            if (pipe.destroyed) return;
            foundAt = clock.now();
            options.onPath?.('resumed', reason, foundAt - lostAt);
            return;
          }
          if (over.signal.aborted) return;
        }
      }
    } finally {
      clearInterval(hold);
    }
  }

  /** False when the session is over. Without an answer the old ticket has to do. */
  async function renew(): Promise<boolean> {
    try {
      const fresh = await options.renewTicket();
      if (fresh.agentKey !== options.agentKey) throw new TunnelError('agent-restarted');
      ({ ticket, satellites } = fresh);
    } catch (error) {
      if (error instanceof TunnelError) options.ended(error);
    }
    return !over.signal.aborted;
  }

  /** True when the pipe goes on, or is over; false when this satellite does not serve now. */
  async function resumeOver(url: string, lost: TunnelError): Promise<boolean> {
    try {
      const link = makeLink(await dial({ ...options, url, ticket, signal: over.signal }));
      const refusal = await askToResume(link, secret, pipe.expected, {
        timeoutMs: options.handshakeTimeoutMs ?? 10_000,
        signal: over.signal,
        attach: (position) => pipe.attach(link, position),
      });
      if (refusal) options.ended(meaning(refusal, lost));
      return true;
    } catch (error) {
      // Any other is for the next satellite, or the next attempt.
      const over = error instanceof TunnelError && error.code === 'access-ended';
      if (over) options.ended(error);
      return over;
    }
  }

  function meaning(refusal: TunnelError, lost: TunnelError): TunnelError {
    if (refusal.code !== 'session-unknown') return refusal;
    // Before it was accepted the agent has nothing to know: what counts is why the path broke.
    return options.known() ? new TunnelError('agent-restarted') : lost;
  }
}
