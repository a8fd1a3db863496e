import type { TunnelErrorCode } from '../errors.ts';

/** The relay protocol shared by clients, agents and satellites. README.md describes the sequence. */
export const relayPaths = {
  /** For clients, with a ticket; carries one pipe. */
  dial: '/relay/v1/dial',
  /** For agents, with a listen token; becomes the other end of one dial. */
  listen: '/relay/v1/listen',
  /** Answers 204 to everyone, for measuring the round trip. */
  probe: '/relay/v1/probe',
  /** With a probe token: `down?bytes=N` sends N bytes, `up` accepts a body and returns its length. */
  down: '/relay/v1/probe/down',
  up: '/relay/v1/probe/up',
} as const;

/**
 * The SHA-256 of its own certificate, in a satellite's or server's answer to a probe if it terminates TLS itself. A client
 * that sees another one is not talking to it directly.
 */
export const certificateHeader = 'cde-certificate';

/** WebSocket close codes of a satellite, and the error that the receiving side reports. */
export const relayCloseCodes = {
  1012: 'satellite-restarted',
  4400: 'satellite-refused',
  4403: 'access-ended',
  4404: 'agent-not-connected',
  4409: 'listener-superseded',
  4410: 'agent-lost',
  4411: 'client-lost',
  4429: 'satellite-overloaded',
  4503: 'satellite-draining',
} as const satisfies Record<number, TunnelErrorCode>;
export type RelayCloseCode = keyof typeof relayCloseCodes;

/**
 * Text message from a satellite to a listening agent: the socket now belongs to a client, and all further binary
 * messages are the pipe's.
 */
export const dialedMessage = 'dialed';

/** Maximum WebSocket message on a relay: one frame with its header, and room for larger frames later. */
export const maxRelayMessage = 256 * 1024;

/**
 * While a relay socket is used, and for half a minute after, each end sends an unsolicited WebSocket pong at this
 * interval, and considers the other dead after the deadline without any. Two one-way signals instead of ping and
 * answer, because an end that has paused reading (backpressure) would never see the ping. At 5 s two may be lost.
 */
export const heartbeatMs = 5_000;
export const deadAfterMs = 15_000;

/**
 * Without payload for this long a socket or direct path is idle, as it is most of the day for an editor left open. A
 * beat every 30 s then keeps it in the tables of proxies and firewalls (the shortest time out after a minute) at next
 * to no cost; two may be lost. Sending after an idle period detects a dead path as fast as before.
 */
export const idleAfterMs = 30_000;
export const idleHeartbeatMs = 30_000;
export const idleDeadAfterMs = 75_000;
