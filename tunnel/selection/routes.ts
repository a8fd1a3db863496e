import type { TicketHolder } from '../auth/ticket-holder.ts';
import { dialDirect } from '../paths/direct-tcp.ts';
import type { DirectTimes } from '../paths/liveness.ts';
import { dialRelay } from '../paths/relay.ts';
import type { SocketTimes } from '../paths/socket.ts';
import { makeLink } from '../pipe/link.ts';
import type { Path } from '../pipe/path.ts';
import { makeResumeHandshake, type ResumeSecret } from '../pipe/resume.ts';
import { parseAddress } from './offers.ts';
import { relayPath, tcpPath } from './path-id.ts';
import type { Route } from './reconnect.ts';

export interface RouteOptions extends SocketTimes, DirectTimes {
  secret: ResumeSecret;
  tickets: TicketHolder;
  handshakeTimeoutMs?: number;
  /** Opens a path through a satellite; dialRelay, except in tests. */
  dial?: (options: { url: string; ticket: string; signal: AbortSignal } & SocketTimes) => Promise<Path>;
  /** Connect timeout of a direct address. */
  directTimeoutMs?: number;
}

/** A reachable address answers within this time; a firewall that drops packets would take minutes. */
const defaultDirectTimeoutMs = 1_500;

/** Creates routes to the agent of a known session: each dials and starts the resume handshake. */
export function makeRoutes(options: RouteOptions) {
  const { dial = dialRelay, secret } = options;
  return {
    relay: (
      url: string,
      more: { closed?: () => void; onSwitchRequest?: () => void; timeoutMs?: number } = {},
    ): Route => ({
      id: relayPath(url),
      kind: 'relay',
      via: url,
      async connect(signal) {
        const path = await dial({ ...options, url, ticket: options.tickets.ticket, signal });
        const timeoutMs = options.handshakeTimeoutMs ?? 10_000;
        return makeResumeHandshake(makeLink(path), secret, { timeoutMs, signal, ...more });
      },
    }),
    direct(address: string): Route {
      const timeoutMs = options.directTimeoutMs ?? defaultDirectTimeoutMs;
      return {
        id: tcpPath(address),
        kind: 'direct-tcp',
        via: address,
        async connect(signal) {
          const path = await dialDirect({ ...options, ...parseAddress(address)!, timeoutMs, signal });
          return makeResumeHandshake(makeLink(path), secret, { timeoutMs, signal });
        },
      };
    },
  };
}
export type Routes = ReturnType<typeof makeRoutes>;
