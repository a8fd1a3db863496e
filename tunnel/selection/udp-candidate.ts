import { asTunnelError, TunnelError } from '../errors.ts';
import { makeLink } from '../pipe/link.ts';
import type { Path } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import { makeResumeHandshake, type ResumeHandshake, type ResumeSecret } from '../pipe/resume.ts';
import { udpPath } from './path-id.ts';
import type { Route } from './reconnect.ts';

/**
 * A candidate path by UDP. Finding one takes both ends several seconds, so the search runs in the background and the
 * path is kept while it is measured. Failures do not affect the session on its own path.
 */
export interface UdpCandidate {
  readonly isSearching: boolean;
  /** Searches for a path unless a search is in progress or a path exists. Rejects if none is found. */
  search(): Promise<void>;
  /**
   * Measures the candidate: the minimum round trip of a few requests in milliseconds, null if the path failed,
   * undefined if there is no candidate or it was dropped meanwhile.
   */
  measure(): Promise<number | null | undefined>;
  /** The peer's address; undefined if there is no candidate. */
  readonly via: string | undefined;
  /** Hands the path over to the session; undefined if there is no candidate. */
  route(): Route | undefined;
  /** Drops the path and cancels a search. */
  drop(): void;
}

/** Finds a UDP path to the agent. */
export type FindUdpPath = (signal: AbortSignal) => Promise<Path>;

const requests = 3;
/** The path was found a moment ago: it answers promptly or is gone. */
const responseTimeoutMs = 3_000;

export function makeUdpCandidate(options: {
  pipe: Pipe;
  secret: ResumeSecret;
  findUdpPath: FindUdpPath;
  /** Aborted when the session ends. */
  signal: AbortSignal;
}): UdpCandidate {
  const { pipe, secret, findUdpPath } = options;
  let held: { handshake: ResumeHandshake; via: string } | undefined;
  let searching: Promise<void> | undefined;
  let cancel = new AbortController();
  /** A handshake handles one request at a time. */
  let measuring = false;

  async function findCandidate(signal: AbortSignal): Promise<void> {
    const path = await findUdpPath(signal);
    if (signal.aborted) {
      path.close();
      throw new TunnelError('session-aborted');
    }
    const handshake = makeResumeHandshake(makeLink(path), secret, {
      timeoutMs: responseTimeoutMs,
      signal: options.signal,
      closed() {
        if (held?.handshake === handshake) held = undefined;
      },
    });
    const answer = await handshake.request(pipe.expected);
    if ('refusal' in answer) throw answer.refusal;
    if (signal.aborted) {
      handshake.drop();
      throw new TunnelError('session-aborted');
    }
    // The agent soon drops a client that only measures and holds no path in reserve.
    handshake.hold();
    held = { handshake, via: path.via };
  }

  function drop(): void {
    cancel.abort();
    cancel = new AbortController();
    held?.handshake.drop();
    held = undefined;
  }
  options.signal.addEventListener('abort', drop, { once: true });

  return {
    get isSearching() {
      return searching !== undefined;
    },
    search() {
      if (held) return Promise.resolve();
      if (searching) return searching;
      const signal = AbortSignal.any([options.signal, cancel.signal]);
      searching = findCandidate(signal)
        .catch((error) => {
          throw signal.aborted
            ? new TunnelError('session-aborted')
            : asTunnelError(error, 'path-unreachable');
        })
        .finally(() => {
          searching = undefined;
        });
      return searching;
    },
    async measure() {
      const { handshake } = held ?? {};
      let minMs = Number.POSITIVE_INFINITY;
      measuring = true;
      const { signal } = cancel;
      try {
        for (let i = 0; handshake && i < requests; i++) {
          const answer = await handshake.request(pipe.expected);
          if ('refusal' in answer) throw answer.refusal;
          minMs = Math.min(minMs, answer.rttMs);
        }
      } catch {
        if (signal.aborted) return undefined;
        if (held?.handshake === handshake) held = undefined;
        return null;
      } finally {
        measuring = false;
      }
      return handshake ? minMs : undefined;
    },
    get via() {
      return held?.via;
    },
    route() {
      if (!held) return undefined;
      const { handshake, via } = held;
      return {
        id: udpPath,
        kind: 'direct-udp',
        via,
        async connect() {
          if (held?.handshake !== handshake || measuring) throw new TunnelError('path-lost');
          held = undefined;
          return handshake;
        },
      };
    },
    drop,
  };
}
