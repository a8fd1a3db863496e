import type { TicketReply } from '@cde/api/workspaces.ts';
import type { TicketHolder } from '../auth/ticket-holder.ts';
import { backoff, type Clock, systemClock } from '../clock.ts';
import { TunnelError } from '../errors.ts';
import type { SocketTimes } from '../paths/socket.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import type { ResumeHandshake } from '../pipe/resume.ts';

export interface ReconnectOptions extends Pick<TicketReply, 'agentKey'>, SocketTimes {
  /** How long to look for a path before the session ends with `session-abandoned`; default 8 h. */
  waitMs?: number;
  /**
   * `lost`: the path broke, and why. `resumed`: it goes on over another, after so many milliseconds. The
   * reason is that of the loss both times.
   */
  onPath?: (state: 'lost' | 'resumed', reason: TunnelError, afterMs: number) => void;
  clock?: Clock;
}

/** A way to the agent that may be tried. */
export interface Route {
  /** Kind and `via` in one. */
  id: string;
  kind: PathKind;
  /** As Path.via. */
  via: string;
  /** Opens a path there, or hands out one that waits in reserve. */
  contact(signal: AbortSignal): Promise<ResumeHandshake>;
}

/** Who knows the ways to the agent. */
export interface RouteProvider {
  /** The path is lost, and why. */
  lost(reason: TunnelError): void;
  /** Where to try, best first: asked anew for each attempt. */
  routes(): Route[];
  /** It goes on there, after so many milliseconds without a path. */
  resumed(route: Route, afterMs: number): void;
}

/** As long as the agent waits by default. */
export const defaultWaitMs = 8 * 3600_000;

/** A person sits before it: no longer pause than this between two attempts. */
const maxDelayMs = 5_000;

/** A path that lived this long was good: the next is dialled at once. Else a bad one would be dialled in a loop. */
const stableAfterMs = 5_000;

/**
 * Lets the pipe of a client's session outlive its path: dials again at once, then with growing pauses, until
 * the session goes on or is over. `ended` gets the reason when it is; `known` tells whether the agent has
 * ever accepted it.
 */
export function reconnectPipe(
  pipe: Pipe,
  options: ReconnectOptions & {
    tickets: TicketHolder;
    guide: RouteProvider;
    onEnd: (error: TunnelError) => void;
    isAccepted: () => boolean;
  },
): void {
  const { clock = systemClock, guide, tickets } = options;
  const over = new AbortController();
  let failures = 0;
  let foundAt = clock.now();
  pipe.once('close', () => over.abort());
  pipe.enableResume({ waitMs: options.waitMs ?? defaultWaitMs, lost: (reason) => void reconnect(reason) });

  async function reconnect(reason: TunnelError): Promise<void> {
    const lostAt = clock.now();
    failures = lostAt - foundAt < stableAfterMs ? failures + 1 : 0;
    // A process must not end for want of anything to do while it waits.
    const hold = setInterval(() => {}, 2 ** 30);
    try {
      guide.lost(reason);
      options.onPath?.('lost', reason, 0);
      for (let attempt = 0; ; attempt++, failures++) {
        if (failures > 0) await clock.sleep(backoff(failures, clock.random, maxDelayMs), over.signal);
        if (over.signal.aborted) return;
        if (attempt > 0 && !(await renew())) return;
        for (const route of guide.routes()) {
          if (await resumeOver(route, reason)) {
            if (pipe.destroyed) return;
            foundAt = clock.now();
            guide.resumed(route, foundAt - lostAt);
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
      await tickets.renew();
    } catch (error) {
      if (error instanceof TunnelError) options.onEnd(error);
    }
    return !over.signal.aborted;
  }

  /** True when the pipe goes on, or is over; false when this route does not serve now. */
  async function resumeOver(route: Route, lost: TunnelError): Promise<boolean> {
    try {
      const refusal = await switchPipe(pipe, await route.contact(over.signal));
      if (refusal?.code === 'path-forbidden') return false;
      if (refusal) options.onEnd(meaning(refusal, lost));
      return true;
    } catch (error) {
      // Any other is for the next route, or the next attempt.
      const over = error instanceof TunnelError && error.code === 'access-ended';
      if (over) options.onEnd(error);
      return over;
    }
  }

  function meaning(refusal: TunnelError, lost: TunnelError): TunnelError {
    if (refusal.code !== 'session-unknown') return refusal;
    // Before it was accepted the agent has nothing to know: what counts is why the path broke.
    return options.isAccepted() ? new TunnelError('agent-restarted') : lost;
  }
}

/**
 * Lets the pipe go on over the path of a contact. Resolves to null then, or to the agent's refusal; rejects when
 * the path does not serve.
 */
export async function switchPipe(pipe: Pipe, contact: ResumeHandshake): Promise<TunnelError | null> {
  const said = pipe.expected;
  const answer = await contact.ask(said);
  if ('refusal' in answer) return answer.refusal;
  contact.confirm();
  pipe.attach(contact.link, answer.agentPosition, said);
  return null;
}
