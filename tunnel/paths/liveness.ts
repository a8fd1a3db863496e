import { beatFrame, beats, readBeat } from '../pipe/frames.ts';
import { deadAfterMs, heartbeatMs, idleAfterMs, idleDeadAfterMs, idleHeartbeatMs } from './relay-protocol.ts';

/** Timeouts with which a direct path detects a dead peer. */
export interface DirectTimes {
  /** Heartbeat interval while the path is used, and for half a minute after. */
  heartbeatMs?: number;
  /** Silence after which the peer counts as dead while the path is used. */
  deadAfterMs?: number;
  /** Without payload for this long the path is idle, and the two longer times below apply. */
  idleAfterMs?: number;
  idleHeartbeatMs?: number;
  idleDeadAfterMs?: number;
  /** How long sent payload may go without any sign of life in return. */
  unansweredMs?: number;
}

/**
 * Under traffic each end sends a heartbeat within a second of what it received. Silence after sending therefore soon
 * means that the path is gone (a VPN was left, a firewall lost its state), where TCP or SCTP would retry for minutes.
 */
const busyBeatMs = 1_000;
const defaultUnansweredMs = 4_000;

export interface Liveness {
  /** Call for every chunk received. */
  heard(chunk: Buffer): void;
  /** Call whenever payload is sent. */
  sent(): void;
  /** While reading is paused, silence does not count. */
  pause(paused: boolean): void;
  stop(): void;
}

/** Keeps a direct path alive with BEAT frames and detects when it is dead. */
export function watchLiveness(
  options: DirectTimes & {
    /** False while earlier data waits to be sent: it serves as a sign of life itself. */
    idle: () => boolean;
    beat: (frame: Buffer) => void;
    lost: (why: string) => void;
  },
): Liveness {
  let heardAt = performance.now();
  /** When the oldest payload was sent that nothing has followed; when payload last arrived. */
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
    // This process was stopped (suspended, starved of CPU), and what arrived meanwhile is read after this timer. An
    // idle peer may stay silent for long, so request a beat.
    if (now - tickedAt > 3 * busyBeatMs) {
      heardAt = Math.max(heardAt, now - deadAfter + unanswered + 2 * busyBeatMs);
      unansweredSince = now;
      if (options.idle()) options.beat(beatFrame(beats.request));
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
      const beat = readBeat(chunk);
      if (beat === null || beat === beats.request) payloadAt = heardAt;
      // A peer of an earlier release knows no idle state and would give up after 15 s.
      if (beat === null || beat === beats.legacy) usedAt = heardAt;
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
