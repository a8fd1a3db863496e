import { Duplex } from 'node:stream';
import { type Clock, systemClock } from '../clock.ts';
import { isTunnelErrorCode, TunnelError, type TunnelErrorCode } from '../errors.ts';
import { closeFrame, type Frame } from './frames.ts';
import { type Link, type LinkEvents, makeLink } from './link.ts';
import type { Path } from './path.ts';
import { makePipeState } from './pipe-state.ts';
import { isSwitchRequest } from './resume.ts';
import { makeSendWindow } from './send-window.ts';

/**
 * A pipe: an ordered, reliable Duplex between client and agent over one active path, with backpressure both
 * ways and half-close. TLS runs on top. It is destroyed with a TunnelError that names why: the path's own
 * error, `frame-…` for what it could not accept, or the code that the other end gave.
 *
 * At first it ends with its path. Once it is told to `survive`, it waits for another one, and goes on there
 * byte for byte: TLS and HTTP/2 above notice nothing but the pause.
 */
export interface Pipe extends Duplex {
  /** The active path, or the last one while there is none. */
  readonly path: Path;
  /** True while there is no path. */
  readonly waiting: boolean;
  /** Bytes handed up and taken for sending since the start. */
  readonly received: number;
  readonly sent: number;
  /** The position that it expects next from the other end: what a new path begins with. */
  readonly expected: number;
  /** Bytes of memory that wait to be acknowledged, or sent. */
  readonly bufferedBytes: number;
  /** From now on the loss of the path is no end. */
  enableResume(resumePolicy: ResumePolicy): void;
  /**
   * Goes on over another path, in place of the one it has, if any. The other end has everything below
   * `position`, and was told that this one expects `said`.
   */
  attach(link: Link, position: number, announced: number): void;
  /** Gives up the path, as if it had broken. */
  dropPath(reason: TunnelError): void;
}

export interface ResumePolicy {
  /** How long to be without a path before the pipe ends with `session-abandoned`. */
  waitMs: number;
  /** Told when the path is lost, and why. `attach` a new one. */
  lost: (reason: TunnelError) => void;
}

/** How much the pipe itself buffers each way; beyond it TLS, and so the sender above, waits. */
const highWaterMark = 128 * 1024;

/**
 * What may be under way without an acknowledgement, in memory; beyond it the sender waits. As much as one
 * stream's window: 50 MB/s at 80 ms. It is also what a session that waits for a path can cost.
 */
export const maxBufferedBytes = 4 * 1024 * 1024;

/** An ACK goes with whatever is sent; by itself after this many bytes, far below maxHeld, … */
const ackEvery = 256 * 1024;
/** … or, so that the other end sees how fast it goes and how long it takes, after so many when 5 ms have passed, … */
const ackSome = 32 * 1024;
const ackSomeMs = 5;
/** … or after this long, so that a session at rest holds nothing. One small packet after each burst. */
const ackDelayMs = 1_000;

/** What a satellite says when it closes a path for good: no other path will be admitted. */
const final: ReadonlySet<TunnelErrorCode> = new Set(['access-ended']);

/** Makes a pipe over a path that is open, and starts the path, if `link` has not. */
export function makePipe(options: { path: Path; link?: Link; clock?: Clock }): Pipe {
  const { clock = systemClock } = options;
  const state = makePipeState();
  const flight = makeSendWindow({ now: clock.now, maxBytes: maxBufferedBytes });
  const over = new AbortController();
  let link: Link | undefined;
  let { path } = options;
  /** The path takes more. */
  let room = true;
  /** The reader rests. */
  let resting = false;
  let resumePolicy: ResumePolicy | undefined;
  /** Ends the wait for a path. */
  let found: AbortController | undefined;
  let ackArmed = false;
  let ackSoonArmed = false;
  let ackedAt = clock.now();
  /** A write, and the end, that wait. */
  let waiting: (() => void) | undefined;
  let finishing: (() => void) | undefined;

  const duplex = new Duplex({
    highWaterMark,
    read() {
      if (!resting) return;
      resting = false;
      link?.path.resume();
    },
    write: (chunk: Buffer, _encoding, done) => send([chunk], done),
    writev: (entries, done) =>
      send(
        entries.map((entry) => entry.chunk as Buffer),
        done,
      ),
    final(done) {
      finishing = done;
      state.end();
      pump();
    },
    destroy(error, done) {
      over.abort();
      found?.abort();
      waiting = undefined;
      if (link) {
        if (error) link.path.send(closeFrame(error instanceof TunnelError ? error.code : 'session-failed'));
        link.drop();
        link = undefined;
      }
      done(error);
    },
  });

  function send(chunks: Buffer[], done: () => void): void {
    state.append(chunks);
    pump();
    if (takesMore()) done();
    else waiting = done;
  }

  /** Puts on the path what it takes. */
  function pump(): void {
    while (link && room) {
      if (state.unsent && flight.bytes >= flight.limit) {
        flight.limited();
        return;
      }
      const frame = state.next();
      if (!frame) return;
      flight.sent(state.given);
      room = link.path.send(frame);
    }
    if (state.unsent) flight.limited();
  }

  function roomAgain(): void {
    room = true;
    pump();
    letGo();
  }

  function takesMore(): boolean {
    return unreadFull() || (state.bufferedBytes < maxBufferedBytes && (!link || (room && !state.unsent)));
  }

  /**
   * Node's HTTP/2 does not read while a write of its own is under way. Were a write to wait for the other end
   * to read, and the other end's for us, two busy directions would stop each other for good. So a write waits
   * only while what came in is within bounds; past that it is let go, and HTTP/2's windows bound the rest.
   */
  function unreadFull(): boolean {
    return duplex.readableLength >= highWaterMark;
  }

  function letGo(): void {
    if (!waiting || !takesMore()) return;
    const done = waiting;
    waiting = undefined;
    done();
  }

  function finish(): void {
    const done = finishing;
    finishing = undefined;
    done?.();
  }

  function acknowledge(): void {
    if (!link || state.owed === 0) return;
    ackedAt = clock.now();
    const more = link.path.send(state.ack());
    // The path has said anew whether it takes more.
    if (more && !room) roomAgain();
    else room = more;
  }

  function acknowledgeSoon(): void {
    if (state.owed >= ackEvery) acknowledge();
    else if (state.owed >= ackSome && !ackSoonArmed) {
      const wait = ackedAt + ackSomeMs - clock.now();
      if (wait <= 0) acknowledge();
      else {
        ackSoonArmed = true;
        void clock.sleep(wait, over.signal).then(() => {
          ackSoonArmed = false;
          acknowledge();
        });
      }
    }
    if (ackArmed || state.owed === 0) return;
    ackArmed = true;
    void clock.sleep(ackDelayMs, over.signal).then(() => {
      ackArmed = false;
      acknowledge();
    });
  }

  function take(frame: Frame): void {
    if (frame.type === 'close') {
      duplex.destroy(new TunnelError(isTunnelErrorCode(frame.code) ? frame.code : 'pipe-closed', frame.code));
      return;
    }
    if (isSwitchRequest(frame)) return;
    const fresh = state.receive(frame);
    if (frame.type === 'ack') {
      flight.acknowledged(state.acknowledged);
      if (state.finished) finish();
      pump();
      letGo();
    } else if (fresh === 'end') {
      acknowledge();
      duplex.push(null);
    } else if (fresh) {
      if (!duplex.push(fresh)) {
        resting = true;
        link?.path.pause();
      }
      acknowledgeSoon();
      letGo();
    }
  }

  function lose(error: TunnelError | null): void {
    link = undefined;
    if (duplex.destroyed) return;
    if (!resumePolicy || (error && final.has(error.code))) {
      // Both directions have ended: nothing is lost.
      if (state.ended && duplex.writableEnded) finish();
      else duplex.destroy(error ?? new TunnelError('pipe-closed'));
      return;
    }
    const reason = error ?? new TunnelError('pipe-closed');
    const wait = new AbortController();
    found = wait;
    void clock.sleep(resumePolicy.waitMs, wait.signal).then(() => {
      if (!wait.signal.aborted) duplex.destroy(new TunnelError('session-abandoned', reason.message));
    });
    letGo();
    resumePolicy.lost(reason);
  }

  function use(next: Link): void {
    link = next;
    path = next.path;
    room = true;
    const mine = (handle: () => void) => {
      if (link === next && !duplex.destroyed) handle();
    };
    const events: LinkEvents = {
      frame: (frame) => mine(() => take(frame)),
      drain: () => mine(roomAgain),
      closed: (error) => mine(() => lose(error)),
      broken: (error) => mine(() => duplex.destroy(error)),
    };
    if (resting) next.path.pause();
    next.listen(events);
  }

  use(options.link ?? makeLink(path));

  const pipe = Object.defineProperties(duplex, {
    path: { get: () => path },
    waiting: { get: () => !link },
    received: { get: () => state.received },
    sent: { get: () => state.sent },
    expected: { get: () => state.expected },
    bufferedBytes: { get: () => state.bufferedBytes },
  }) as Pipe;
  return Object.assign(pipe, {
    enableResume(next: ResumePolicy) {
      resumePolicy = next;
    },
    attach(next: Link, position: number, announced: number) {
      if (duplex.destroyed) return next.drop();
      found?.abort();
      const old = link;
      link = undefined;
      old?.drop();
      use(next);
      try {
        state.rewind(position, announced);
        flight.restart(state.acknowledged);
      } catch (error) {
        duplex.destroy(error as Error);
        return;
      }
      pump();
      // What came over the old path since it was said.
      acknowledge();
      if (state.finished) finish();
      letGo();
    },
    dropPath(reason: TunnelError) {
      const old = link;
      if (!old) return;
      old.drop();
      lose(reason);
    },
  });
}
