import { asTunnelError, TunnelError } from './errors.ts';
import { makeLink } from './link.ts';
import type { Path } from './path.ts';
import type { Pipe } from './pipe.ts';
import type { Route } from './redial.ts';
import { type Contact, makeContact, type ResumeSecret } from './resume.ts';
import { udpId } from './routes.ts';

/**
 * A path by UDP in the making. It takes seconds to find one, and both ends, so it is looked for beside everything
 * else, and kept while it is measured; whatever fails, the session on its own path notices nothing.
 */
export interface Prospect {
  /** True while a path is being looked for. */
  readonly busy: boolean;
  /** Looks for a path, unless that is under way or there is one. Rejects with the reason when none is found. */
  look(): Promise<void>;
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
export type Introduce = (signal: AbortSignal) => Promise<Path>;

const asks = 3;
/** The path has just been found: it answers at once, or is gone. */
const answerMs = 3_000;

export function makeProspect(options: {
  pipe: Pipe;
  secret: ResumeSecret;
  introduce: Introduce;
  /** The session's end. */
  signal: AbortSignal;
}): Prospect {
  const { pipe, secret, introduce } = options;
  let held: { contact: Contact; via: string } | undefined;
  let underWay: Promise<void> | undefined;
  let calledOff = new AbortController();
  /** A contact is asked one thing at a time. */
  let measuring = false;

  async function find(signal: AbortSignal): Promise<void> {
    const path = await introduce(signal);
    if (signal.aborted) {
      path.close();
      throw new TunnelError('session-aborted');
    }
    const contact = makeContact(makeLink(path), secret, {
      timeoutMs: answerMs,
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
    calledOff.abort();
    calledOff = new AbortController();
    held?.contact.drop();
    held = undefined;
  }
  options.signal.addEventListener('abort', drop, { once: true });

  return {
    get busy() {
      return underWay !== undefined;
    },
    look() {
      if (held) return Promise.resolve();
      if (underWay) return underWay;
      const signal = AbortSignal.any([options.signal, calledOff.signal]);
      underWay = find(signal)
        .catch((error) => {
          throw signal.aborted
            ? new TunnelError('session-aborted')
            : asTunnelError(error, 'path-unreachable');
        })
        .finally(() => {
          underWay = undefined;
        });
      return underWay;
    },
    async measure() {
      const { contact } = held ?? {};
      let least = Number.POSITIVE_INFINITY;
      measuring = true;
      const { signal } = calledOff;
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
