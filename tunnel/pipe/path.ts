import type { TunnelError } from '../errors.ts';

export const pathKinds = ['relay', 'direct-tcp', 'direct-udp'] as const;
export type PathKind = (typeof pathKinds)[number];

/**
 * A path carries a pipe's bytes between client and agent in order: a WebSocket through a relay, a direct TCP
 * connection, an ICE data channel. It knows nothing about frames and may split chunks anywhere.
 */
export interface Path {
  readonly kind: PathKind;
  /** The satellite's URL or the peer's address. */
  readonly via: string;
  /** Starts delivery. Called once; data that arrived earlier is buffered until then. */
  start(events: PathEvents): void;
  /**
   * Accepts the chunk in any case; false asks the caller to wait for `drain`. The caller reuses the memory once the
   * other end has acknowledged the bytes, so a path within one process must copy it.
   */
  send(chunk: Buffer): boolean;
  /** Pauses delivery of `data`; a few chunks may still arrive after the call. */
  pause(): void;
  resume(): void;
  /**
   * The round trip to the satellite in milliseconds, over this very connection; null if there is no answer. Absent in
   * paths with one leg.
   */
  measureLeg?(signal: AbortSignal): Promise<number | null>;
  /** Closes the path after flushing; `closed` follows unless it was called before. */
  close(): void;
}

export interface PathEvents {
  data(chunk: Buffer): void;
  drain(): void;
  /** Called once: with null if the other side closed the path in order, else with the reason it broke. */
  closed(error: TunnelError | null): void;
}
