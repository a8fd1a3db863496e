import { asTunnelError, TunnelError } from '../errors.ts';
import { makeLink } from '../pipe/link.ts';
import type { Path } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import { makeResumeHandshake, type ResumeHandshake, type ResumeSecret } from '../pipe/resume.ts';
import type { Route } from './reconnect.ts';
import { udpId } from './routes.ts';

/**
 * A path by UDP in the making. It takes seconds to find one, and both ends, so it is looked for beside everything
 * else, and kept while it is measured; whatever fails, the session on its own path notices nothing.
 */
export interface UdpCandidate {
  /** True while a path is being looked for. */
  readonly isSearching: boolean;
  /** Looks for a path, unless that is under way or there is one. Rejects with the reason when none is found. */
  searchPath(): Promise<void>;
  /**
   * The round trip over the path that is there, in milliseconds, the least of a few; null when it does not serve,
   * undefined when there is none, or it was dropped meanwhile.
   */
  measure(): Promise<number | null | undefined>;
  /** Where it leads; undefined when there is none. */
  readonly via: string | undefined;
  /** Hands the path out for the session to go on there; undefined when there is none. */
  route(): Route | undefined;
  /** Lets go of the path, and of what is under way. */
  drop(): void;
}

/** Finds a path with the agent; rejects with the reason. */
export type FindUdpPath = (signal: AbortSignal) => Promise<Path>;

const asks = 3;
/** The path has just been found: it answers at once, or is gone. */
const responseTimeoutMs = 3_000;

export function makeUdpCandidate(options: {
  pipe: Pipe;
  secret: ResumeSecret;
  findUdpPath: FindUdpPath;
  /** The session's end. */
  signal: AbortSignal;
}): UdpCandidate {
  const { pipe, secret, findUdpPath } = options;
  let held: { contact: ResumeHandshake; via: string } | undefined;
  let search: Promise<void> | undefined;
  let cancel = new AbortController();
  /** A contact is asked one thing at a time. */
  let measuring = false;

  async function searchPath(signal: AbortSignal): Promise<void> {
    const path = await findUdpPath(signal);
    if (signal.aborted) {
      path.close();
      throw new TunnelError('session-aborted');
    }
    const contact = makeResumeHandshake(makeLink(path), secret, {
      timeoutMs: responseTimeoutMs,
      signal: options.signal,
      closed() {
        if (held?.contact === contact) held = undefined;
      },
    });
    const answer = await contact.ask(pipe.expected);
    if ('refusal' in answer) throw answer.refusal;
    if (signal.aborted) {
      contact.drop();
      throw new TunnelError('session-aborted');
    }
    // Else the agent would soon turn away who only measures.
    contact.hold();
    held = { contact, via: path.via };
  }

  function drop(): void {
    cancel.abort();
    cancel = new AbortController();
    held?.contact.drop();
    held = undefined;
  }
  options.signal.addEventListener('abort', drop, { once: true });

  return {
    get isSearching() {
      return search !== undefined;
    },
    searchPath() {
      if (held) return Promise.resolve();
      if (search) return search;
      const signal = AbortSignal.any([options.signal, cancel.signal]);
      search = searchPath(signal)
        .catch((error) => {
          throw signal.aborted
            ? new TunnelError('session-aborted')
            : asTunnelError(error, 'path-unreachable');
        })
        .finally(() => {
          search = undefined;
        });
      return search;
    },
    async measure() {
      const { contact } = held ?? {};
      let least = Number.POSITIVE_INFINITY;
      measuring = true;
      const { signal } = cancel;
      try {
        for (let i = 0; contact && i < asks; i++) {
          const answer = await contact.ask(pipe.expected);
          if ('refusal' in answer) throw answer.refusal;
          least = Math.min(least, answer.rttMs);
        }
      } catch {
        if (signal.aborted) return undefined;
        if (held?.contact === contact) held = undefined;
        return null;
      } finally {
        measuring = false;
      }
      return contact ? least : undefined;
    },
    get via() {
      return held?.via;
    },
    route() {
      if (!held) return undefined;
      const { contact, via } = held;
      return {
        id: udpId,
        kind: 'direct-udp',
        via,
        async contact() {
          if (held?.contact !== contact || measuring) throw new TunnelError('path-lost');
          held = undefined;
          return contact;
        },
      };
    },
    drop,
  };
}
