import type { TunnelErrorCode } from '../errors.ts';

/** What clients, agents and satellites agree on about the relay. README.md tells the sequence. */
export const relayPaths = {
  /** A client, with its ticket, for one pipe. */
  dial: '/relay/v1/dial',
  /** An agent, with its listen token; becomes the other end of one dial. */
  listen: '/relay/v1/listen',
  /** Anybody: answers 204, to tell how far the satellite is. */
  probe: '/relay/v1/probe',
  /** Who shows a probe token: `down?bytes=N` sends so many, `up` takes a body and says how long it was. */
  down: '/relay/v1/probe/down',
  up: '/relay/v1/probe/up',
} as const;

/** The WebSocket close codes that a satellite gives, and the error that the side which gets one reports. */
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
 * The text message with which a satellite tells a listening agent that its socket now belongs to a client;
 * all binary messages from then on are the pipe's.
 */
export const dialedMessage = 'dialed';

/** Largest WebSocket message on a relay: one frame and its header, with room for a later, larger one. */
export const maxRelayMessage = 256 * 1024;

/**
 * While payload is under way, and for half a minute after, every end of a relay socket sends a WebSocket pong this often, asked or not, and takes the other for dead
 * when nothing came for the deadline. Two one-way signals rather than ping and answer, because an end that
 * has paused reading (backpressure) would never see the ping. 5 s lets two be lost within the deadline.
 */
export const heartbeatMs = 5_000;
export const deadAfterMs = 15_000;

/**
 * Without payload for so long a socket, or a direct path, rests: most of a day, for an editor left open. Then a beat each
 * 30 s keeps it in the tables of proxies and firewalls (the shortest forget after a minute) and costs next to nothing;
 * two may be lost. Who sends after a rest hears of a dead path as soon as before.
 */
export const idleAfterMs = 30_000;
export const idleHeartbeatMs = 30_000;
export const idleDeadAfterMs = 75_000;
