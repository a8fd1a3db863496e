import type { TicketHolder } from '../auth/ticket-holder.ts';
import { TunnelError } from '../errors.ts';
import type { Pipe } from '../pipe/pipe.ts';
import type { ResumeHandshake } from '../pipe/resume.ts';
import { isSamePath, type PathId, relayPath } from './path-id.ts';
import type { Route } from './reconnect.ts';
import type { Routes } from './routes.ts';

/** A reserve that does not answer by then is as dead as the path that broke. */
const responseTimeoutMs = 3_000;

/** A relay path that is kept open while the session uses a direct one, to resume there without dialling. */
export interface Reserve {
  /** The route of the open path; undefined if there is none. Connecting takes the path, or dials if it is gone. */
  route(): Route | undefined;
  /** Opens a path through the best satellite. Failures are ignored. */
  open(signal: AbortSignal): Promise<void>;
  drop(): void;
}

export function makeReserve(options: {
  pipe: Pipe;
  routes: Routes;
  tickets: TicketHolder;
  ranking: () => readonly PathId[];
  connect: (route: Route, signal: AbortSignal) => Promise<ResumeHandshake>;
  /** Called when the reserve was opened, taken or lost. */
  onChange: (isOpen: boolean) => void;
}): Reserve {
  const { pipe, routes, tickets, onChange } = options;
  let held: { route: Route; handshake: ResumeHandshake } | undefined;

  function take(): ResumeHandshake | undefined {
    const handshake = held?.handshake;
    held = undefined;
    if (handshake) onChange(false);
    return handshake;
  }

  return {
    route() {
      if (!held) return undefined;
      const { route } = held;
      return { ...route, connect: async (signal) => take() ?? route.connect(signal) };
    },
    async open(signal) {
      const best = options.ranking().find(({ kind }) => kind === 'relay');
      const satellite = tickets.satellites.find(({ url }) => !best || isSamePath(relayPath(url), best));
      if (!satellite) return;
      let opened: ResumeHandshake | undefined;
      const route = routes.relay(satellite.url, {
        timeoutMs: responseTimeoutMs,
        closed() {
          if (held?.handshake === opened) take();
        },
        onSwitchRequest() {
          if (!pipe.waiting)
            pipe.dropPath(new TunnelError('path-lost', 'the agent receives nothing over this path'));
        },
      });
      try {
        opened = await options.connect(route, signal);
        const answer = await opened.request(pipe.expected);
        if ('refusal' in answer) return;
        opened.hold();
        held = { route, handshake: opened };
        onChange(true);
      } catch {
        // The next round tries again; reconnecting works without a reserve.
      }
    },
    drop: () => take()?.drop(),
  };
}
