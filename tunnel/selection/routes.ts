import type { TicketHolder } from '../auth/ticket-holder.ts';
import { dialDirect } from '../paths/direct-tcp.ts';
import type { DirectTimes } from '../paths/liveness.ts';
import { dialRelay } from '../paths/relay.ts';
import type { SocketTimes } from '../paths/socket.ts';
import { makeLink } from '../pipe/link.ts';
import type { Path, PathKind } from '../pipe/path.ts';
import { makeResumeHandshake, type ResumeSecret } from '../pipe/resume.ts';
import { parseAddress } from './offers.ts';
import type { Route } from './reconnect.ts';

export interface RouteOptions extends SocketTimes, DirectTimes {
  secret: ResumeSecret;
  tickets: TicketHolder;
  handshakeTimeoutMs?: number;
  /** Opens a path through a satellite; dialRelay, except in tests. */
  dial?: (options: { url: string; ticket: string; signal: AbortSignal } & SocketTimes) => Promise<Path>;
  /** How long an address may take to answer. */
  directTimeoutMs?: number;
}

/** An address that can be reached at all is reached in this time; a firewall that drops would take minutes. */
const defaultDirectTimeoutMs = 1_500;

export const relayId = (url: string) => `relay ${url}`;
export const directId = (address: string) => `direct-tcp ${address}`;
/** There is one at a time, wherever it leads. */
export const udpId = 'direct-udp';

/** The id of the route by which a path was made. */
export const idOf = ({ kind, via }: { kind: PathKind; via: string }): string =>
  kind === 'direct-udp' ? udpId : `${kind} ${via}`;

/** The ways to an agent whose session is known: each dials, and makes contact. */
export function makeRoutes(options: RouteOptions) {
  const { dial = dialRelay, secret } = options;
  return {
    relay: (
      url: string,
      more: { closed?: () => void; come?: () => void; timeoutMs?: number } = {},
    ): Route => ({
      id: relayId(url),
      kind: 'relay',
      via: url,
      contact: async (signal) =>
        makeResumeHandshake(
          makeLink(await dial({ ...options, url, ticket: options.tickets.ticket, signal })),
          secret,
          {
            timeoutMs: options.handshakeTimeoutMs ?? 10_000,
            signal,
            ...more,
          },
        ),
    }),
    direct(address: string): Route {
      const timeoutMs = options.directTimeoutMs ?? defaultDirectTimeoutMs;
      return {
        id: directId(address),
        kind: 'direct-tcp',
        via: address,
        contact: async (signal) =>
          makeResumeHandshake(
            makeLink(await dialDirect({ ...options, ...parseAddress(address)!, timeoutMs, signal })),
            secret,
            {
              timeoutMs,
              signal,
            },
          ),
      };
    },
  };
}
export type Routes = ReturnType<typeof makeRoutes>;
