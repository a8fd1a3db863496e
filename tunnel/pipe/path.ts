import type { TunnelError } from '../errors.ts';

export const pathKinds = ['relay', 'direct-tcp', 'direct-udp'] as const;
export type PathKind = (typeof pathKinds)[number];

/**
 * A path carries a pipe's bytes between client and agent, in order or not at all: a relay's WebSocket, a
 * direct TCP connection, an ICE channel. It knows nothing of frames; chunks may be cut anywhere.
 */
export interface Path {
  readonly kind: PathKind;
  /** Where it leads, for people: the satellite's URL or the peer's address. */
  readonly via: string;
  /** Starts delivery. Called once; what came before is kept until then. */
  start(events: PathEvents): void;
  /**
   * Takes the bytes; false asks to wait for `drain` (they are taken all the same). The memory is the sender's
   * again once the other end has said that it has the bytes: what arrives there must not be a view of it.
   */
  send(chunk: Buffer): boolean;
  /** Stops and restarts the delivery of `data`; a few chunks may still come after `pause`. */
  pause(): void;
  resume(): void;
  /** Ends the path after what was sent; `closed` follows unless it came before. */
  close(): void;
}

export interface PathEvents {
  data(chunk: Buffer): void;
  drain(): void;
  /** Once, at the end: null when the other side closed it in order, else why it broke. */
  closed(error: TunnelError | null): void;
}
