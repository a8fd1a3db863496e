import type { TicketReply } from '@cde/api/workspaces.ts';
import type { TicketHolder } from '../auth/ticket-holder.ts';
import { backoff, type Clock, systemClock } from '../clock.ts';
import { TunnelError } from '../errors.ts';
import type { SocketTimes } from '../paths/socket.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import type { ResumeHandshake } from '../pipe/resume.ts';
import type { PathId } from './path-id.ts';

export interface ReconnectOptions extends Pick<TicketReply, 'agentKey'>, SocketTimes {
  /** How long to look for a path before the session ends with `session-abandoned`; default 8 h. */
  waitMs?: number;
  /**
   * Called with `lost` when the path breaks, and with `resumed` when the session continues over another one after
   * `afterMs`. The reason is that of the loss both times.
   */
  onPath?: (state: 'lost' | 'resumed', reason: TunnelError, afterMs: number) => void;
  clock?: Clock;
}

/** A way to connect to the agent. */
export interface Route {
  id: PathId;
  kind: PathKind;
  /** As Path.via. */
  via: string;
  /** Opens a path, or hands out one that is held in reserve. */
  connect(signal: AbortSignal): Promise<ResumeHandshake>;
}

/** Knows the routes to the agent. */
export interface RouteProvider {
  /** The session lost its path. */
  lost(reason: TunnelError): void;
  /** Routes to try, best first; called for each attempt. */
  routes(): Route[];
  /** The session continues over this route, after so many milliseconds without a path. */
  resumed(route: Route, afterMs: number): void;
}

/** Matches the agent's default. */
export const defaultWaitMs = 8 * 3600_000;

/** Somebody is waiting, so the backoff between attempts stays short. */
const maxDelayMs = 5_000;

/** After a path that lived this long, reconnect immediately; after a shorter one back off, to not dial in a loop. */
const stableAfterMs = 5_000;

/**
 * Lets the pipe of a client's session survive the loss of its path: reconnects immediately, then with growing delays,
 * until the session resumes or ends. `onEnd` receives the reason; `isAccepted` tells whether the agent has ever
 * accepted the session.
 */
export function reconnectPipe(
  pipe: Pipe,
  options: ReconnectOptions & {
    tickets: TicketHolder;
    routeProvider: RouteProvider;
    onEnd: (error: TunnelError) => void;
    isAccepted: () => boolean;
  },
): void {
  const { clock = systemClock, routeProvider, tickets } = options;
  const ended = new AbortController();
  let failures = 0;
  let connectedAt = clock.now();
  pipe.once('close', () => ended.abort());
  pipe.enableResume({ waitMs: options.waitMs ?? defaultWaitMs, lost: (reason) => void reconnect(reason) });

  async function reconnect(reason: TunnelError): Promise<void> {
    const lostAt = clock.now();
    failures = lostAt - connectedAt < stableAfterMs ? failures + 1 : 0;
    // Keeps the process alive: without a path nothing else may.
    const keepAlive = setInterval(() => {}, 2 ** 30);
    try {
      routeProvider.lost(reason);
      options.onPath?.('lost', reason, 0);
      for (let attempt = 0; ; attempt++, failures++) {
        if (failures > 0) await clock.sleep(backoff(failures, clock.random, maxDelayMs), ended.signal);
        if (ended.signal.aborted) return;
        if (attempt > 0 && !(await renewTicket())) return;
        for (const route of routeProvider.routes()) {
          if (await resumeOver(route, reason)) {
            if (pipe.destroyed) return;
            connectedAt = clock.now();
            routeProvider.resumed(route, connectedAt - lostAt);
            options.onPath?.('resumed', reason, connectedAt - lostAt);
            return;
          }
          if (ended.signal.aborted) return;
        }
      }
    } finally {
      clearInterval(keepAlive);
    }
  }

  /** Returns false if the session has ended. If the server does not answer, the old ticket has to do. */
  async function renewTicket(): Promise<boolean> {
    try {
      await tickets.renew();
    } catch (error) {
      if (error instanceof TunnelError) options.onEnd(error);
    }
    return !ended.signal.aborted;
  }

  /** Returns true if the pipe resumed or ended, false if another route should be tried. */
  async function resumeOver(route: Route, lost: TunnelError): Promise<boolean> {
    try {
      const refusal = await switchPipe(pipe, await route.connect(ended.signal));
      if (refusal?.code === 'path-forbidden') return false;
      if (refusal) options.onEnd(endReason(refusal, lost));
      return true;
    } catch (error) {
      const isFinal = error instanceof TunnelError && error.code === 'access-ended';
      if (isFinal) options.onEnd(error);
      return isFinal;
    }
  }

  function endReason(refusal: TunnelError, lost: TunnelError): TunnelError {
    if (refusal.code !== 'session-unknown') return refusal;
    // An agent cannot know a session that it never accepted; then the reason is why the path broke.
    return options.isAccepted() ? new TunnelError('agent-restarted') : lost;
  }
}

/**
 * Moves the pipe to the path of a handshake. Resolves to null, or to the agent's refusal; rejects if the path fails.
 */
export async function switchPipe(pipe: Pipe, handshake: ResumeHandshake): Promise<TunnelError | null> {
  const announced = pipe.expected;
  const answer = await handshake.request(announced);
  if ('refusal' in answer) return answer.refusal;
  handshake.confirm();
  pipe.attach(handshake.link, answer.agentPosition, announced);
  return null;
}
