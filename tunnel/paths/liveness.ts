import { beatFrame, beats, readBeat } from '../pipe/frames.ts';
import { deadAfterMs, heartbeatMs, idleAfterMs, idleDeadAfterMs, idleHeartbeatMs } from './relay-protocol.ts';

/** How a direct path notices that its other end is gone. */
export interface DirectTimes {
  /** A sign of life is sent this often while it is used, and half a minute after. */
  heartbeatMs?: number;
  /** Silence after which the other end is dead, while it is used. */
  deadAfterMs?: number;
  /** Without payload for so long it rests: then it beats so often, and is dead after so long. */
  idleAfterMs?: number;
  idleHeartbeatMs?: number;
  idleDeadAfterMs?: number;
  /** How long what was sent may be without any sign of life in return. */
  unansweredMs?: number;
}

/**
 * While there is traffic each end shows a sign of life within a second of what it got, so silence after what was
 * sent soon means that the path is gone: a VPN that was left, a firewall's table that was emptied. What carries the
 * path would itself try for minutes.
 */
const busyBeatMs = 1_000;
const defaultUnansweredMs = 4_000;

export interface Liveness {
  /** To be told of all that comes. */
  heard(chunk: Buffer): void;
  sent(): void;
  /** While it is paused what the other end says lies unread, by our own choice. */
  pause(paused: boolean): void;
  stop(): void;
}

/** Keeps a direct path alive with BEATs, and finds out when it is dead. */
export function watchLiveness(
  options: DirectTimes & {
    /** False while what was sent before waits to leave: that is a sign of life itself. */
    idle: () => boolean;
    beat: (frame: Buffer) => void;
    lost: (why: string) => void;
  },
): Liveness {
  let heardAt = performance.now();
  /** When payload was first sent that nothing has come after; when payload last came; when anything last went. */
  let unansweredSince: number | undefined;
  let payloadAt = Number.NEGATIVE_INFINITY;
  let sentAt = heardAt;
  let usedAt = heardAt;
  let tickedAt = heardAt;
  let paused = false;
  const timer = setInterval(tick, busyBeatMs);
  timer.unref();

  function tick(): void {
    const now = performance.now();
    const idle = now - usedAt >= (options.idleAfterMs ?? idleAfterMs);
    const deadAfter = idle
      ? (options.idleDeadAfterMs ?? idleDeadAfterMs)
      : (options.deadAfterMs ?? deadAfterMs);
    const unanswered = options.unansweredMs ?? defaultUnansweredMs;
    // This process stood still (no CPU, asleep): what came meanwhile is read after this timer. The other end may
    // rest, and say nothing for long: it is asked.
    if (now - tickedAt > 3 * busyBeatMs) {
      heardAt = Math.max(heardAt, now - deadAfter + unanswered + 2 * busyBeatMs);
      unansweredSince = now;
      if (options.idle()) options.beat(beatFrame(beats.asks));
    }
    tickedAt = now;
    if (paused) {
      heardAt = now;
      unansweredSince = undefined;
    }
    if (now - heardAt > deadAfter) {
      options.lost('no sign of life');
      return;
    }
    if (unansweredSince !== undefined && now - unansweredSince > unanswered) {
      options.lost('no answer to what was sent');
      return;
    }
    const busy = paused || now - payloadAt < 2 * busyBeatMs;
    const everyMs = idle
      ? (options.idleHeartbeatMs ?? idleHeartbeatMs)
      : (options.heartbeatMs ?? heartbeatMs);
    const rested = now - sentAt >= everyMs;
    if ((busy || rested) && options.idle()) {
      sentAt = now;
      options.beat(beatFrame());
    }
  }

  return {
    heard(chunk) {
      heardAt = performance.now();
      unansweredSince = undefined;
      const says = readBeat(chunk);
      if (says === null || says === beats.asks) payloadAt = heardAt;
      // One of an earlier release takes us for dead after 15 s.
      if (says === null || says === beats.old) usedAt = heardAt;
    },
    sent() {
      sentAt = performance.now();
      usedAt = sentAt;
      unansweredSince ??= sentAt;
    },
    pause(now) {
      paused = now;
    },
    stop: () => clearInterval(timer),
  };
}
