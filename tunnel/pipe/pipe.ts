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
 * A pipe: an ordered, reliable Duplex between client and agent over one active path, with half-close and backpressure
 * in both directions. TLS runs on top. It is destroyed with a TunnelError that says why: the path's error, `frame-…`
 * for a protocol violation, or the code that the other end sent.
 *
 * Initially it ends with its path. After `enableResume` it waits for another path and continues there byte for byte;
 * TLS and HTTP/2 above notice nothing but the pause.
 */
export interface Pipe extends Duplex {
  /** The active path, or the last one while there is none. */
  readonly path: Path;
  /** True while there is no path. */
  readonly waiting: boolean;
  /** Bytes received, and accepted for sending, since the start. */
  readonly received: number;
  readonly sent: number;
  /** The position expected next from the other end, reported when moving to a new path. */
  readonly expected: number;
  /** Memory used by data that is unsent or unacknowledged. */
  readonly bufferedBytes: number;
  /** From now on the pipe survives the loss of its path. */
  enableResume(resumePolicy: ResumePolicy): void;
  /**
   * Continues over another path, replacing the current one if there is one. The other end has received everything
   * below `position`, and was told that this end expects `announced`.
   */
  attach(link: Link, position: number, announced: number): void;
  /** Closes the path, as if it had broken. */
  dropPath(reason: TunnelError): void;
}

export interface ResumePolicy {
  /** How long the pipe may be without a path before it ends with `session-abandoned`. */
  waitMs: number;
  /** Called when the path is lost; `attach` a new one. */
  lost: (reason: TunnelError) => void;
}

/** Buffered bytes per direction beyond which TLS, and so the sender above it, waits. */
const highWaterMark = 128 * 1024;

/**
 * Unacknowledged bytes in memory beyond which the sender waits. Equals one stream's window: 50 MB/s at 80 ms. Also
 * bounds the memory of a session without a path.
 */
export const maxBufferedBytes = 4 * 1024 * 1024;

/** ACKs piggyback on data. A standalone ACK is sent after this many bytes, far below maxBufferedBytes, … */
const ackBytes = 256 * 1024;
/** … or after fewer once 5 ms have passed, so that the sender can measure rate and round trip, … */
const ackSoonBytes = 32 * 1024;
const ackSoonMs = 5;
/** … or after this delay, so that an idle session buffers nothing. One small packet per burst. */
const ackDelayMs = 1_000;

/** Errors that end the pipe although it could resume: no satellite would admit another path. */
const fatal: ReadonlySet<TunnelErrorCode> = new Set(['access-ended']);

/** Makes a pipe over an open path, and starts the path unless `link` already has. */
export function makePipe(options: { path: Path; link?: Link; clock?: Clock }): Pipe {
  const { clock = systemClock } = options;
  const state = makePipeState();
  const flight = makeSendWindow({ now: clock.now, maxBytes: maxBufferedBytes });
  const over = new AbortController();
  let link: Link | undefined;
  let { path } = options;
  /** The path accepts more data. */
  let writable = true;
  /** The reader applies backpressure. */
  let readPaused = false;
  let resumePolicy: ResumePolicy | undefined;
  /** Cancels the timeout for being without a path. */
  let wait: AbortController | undefined;
  let ackArmed = false;
  let ackSoonArmed = false;
  let ackedAt = clock.now();
  /** Callbacks of a pending write and of the pending end. */
  let pendingWrite: (() => void) | undefined;
  let pendingFinal: (() => void) | undefined;

  const duplex = new Duplex({
    highWaterMark,
    read() {
      if (!readPaused) return;
      readPaused = false;
      link?.path.resume();
    },
    write: (chunk: Buffer, _encoding, done) => send([chunk], done),
    writev: (entries, done) =>
      send(
        entries.map((entry) => entry.chunk as Buffer),
        done,
      ),
    final(done) {
      pendingFinal = done;
      state.end();
      pump();
    },
    destroy(error, done) {
      over.abort();
      wait?.abort();
      pendingWrite = undefined;
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
    if (canWriteMore()) done();
    else pendingWrite = done;
  }

  /** Sends frames until the path or the send window is full. */
  function pump(): void {
    while (link && writable) {
      if (state.unsent && flight.bytes >= flight.limit) {
        flight.limited();
        return;
      }
      const frame = state.next();
      if (!frame) return;
      flight.sent(state.given);
      writable = link.path.send(frame);
    }
    if (state.unsent) flight.limited();
  }

  function onDrain(): void {
    writable = true;
    pump();
    releaseWrite();
  }

  function canWriteMore(): boolean {
    return (
      isReadBufferFull() || (state.bufferedBytes < maxBufferedBytes && (!link || (writable && !state.unsent)))
    );
  }

  /**
   * Node's HTTP/2 does not read while one of its writes is pending. If writes waited for the other end to read while
   * its writes wait for us, two busy directions would deadlock. So a write only waits while the read buffer is within
   * bounds; beyond that it completes, and HTTP/2's windows bound the rest.
   */
  function isReadBufferFull(): boolean {
    return duplex.readableLength >= highWaterMark;
  }

  function releaseWrite(): void {
    if (!pendingWrite || !canWriteMore()) return;
    const done = pendingWrite;
    pendingWrite = undefined;
    done();
  }

  function finish(): void {
    const done = pendingFinal;
    pendingFinal = undefined;
    done?.();
  }

  function acknowledge(): void {
    if (!link || state.owed === 0) return;
    ackedAt = clock.now();
    const more = link.path.send(state.ack());
    if (more && !writable) onDrain();
    else writable = more;
  }

  function acknowledgeSoon(): void {
    if (state.owed >= ackBytes) acknowledge();
    else if (state.owed >= ackSoonBytes && !ackSoonArmed) {
      const delayMs = ackedAt + ackSoonMs - clock.now();
      if (delayMs <= 0) acknowledge();
      else {
        ackSoonArmed = true;
        void clock.sleep(delayMs, over.signal).then(() => {
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

  function receive(frame: Frame): void {
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
      releaseWrite();
    } else if (fresh === 'end') {
      acknowledge();
      duplex.push(null);
    } else if (fresh) {
      if (!duplex.push(fresh)) {
        readPaused = true;
        link?.path.pause();
      }
      acknowledgeSoon();
      releaseWrite();
    }
  }

  function losePath(error: TunnelError | null): void {
    link = undefined;
    if (duplex.destroyed) return;
    if (!resumePolicy || (error && fatal.has(error.code))) {
      // If both directions have ended, nothing is lost.
      if (state.ended && duplex.writableEnded) finish();
      else duplex.destroy(error ?? new TunnelError('pipe-closed'));
      return;
    }
    const reason = error ?? new TunnelError('pipe-closed');
    const timeout = new AbortController();
    wait = timeout;
    void clock.sleep(resumePolicy.waitMs, timeout.signal).then(() => {
      if (!timeout.signal.aborted) duplex.destroy(new TunnelError('session-abandoned', reason.message));
    });
    releaseWrite();
    resumePolicy.lost(reason);
  }

  function use(next: Link): void {
    link = next;
    path = next.path;
    writable = true;
    const ifActive = (handle: () => void) => {
      if (link === next && !duplex.destroyed) handle();
    };
    const events: LinkEvents = {
      frame: (frame) => ifActive(() => receive(frame)),
      drain: () => ifActive(onDrain),
      closed: (error) => ifActive(() => losePath(error)),
      broken: (error) => ifActive(() => duplex.destroy(error)),
    };
    if (readPaused) next.path.pause();
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
      wait?.abort();
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
      // For data that arrived over the old path since `announced`.
      acknowledge();
      if (state.finished) finish();
      releaseWrite();
    },
    dropPath(reason: TunnelError) {
      const old = link;
      if (!old) return;
      old.drop();
      losePath(reason);
    },
  });
}
