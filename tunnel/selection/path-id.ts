import type { PathKind } from '../pipe/path.ts';

/** Identifies a path that a session may use; `via` is the satellite's URL or the agent's HOST:PORT. */
export interface PathId {
  readonly kind: PathKind;
  readonly via: string;
}

/** A session has at most one path by UDP at a time, and its address is known only once ICE has finished. */
export const udpPath: PathId = { kind: 'direct-udp', via: 'ICE' };
export const relayPath = (url: string): PathId => ({ kind: 'relay', via: url });
export const tcpPath = (address: string): PathId => ({ kind: 'direct-tcp', via: address });

/** The id of an open or measured path. */
export const pathIdOf = ({ kind, via }: PathId): PathId => (kind === 'direct-udp' ? udpPath : { kind, via });

/** Encodes an id as a map key. */
export const pathKey = ({ kind, via }: PathId): string => `${kind} ${via}`;

export const isSamePath = (one: PathId, other: PathId): boolean =>
  one.kind === other.kind && one.via === other.via;
