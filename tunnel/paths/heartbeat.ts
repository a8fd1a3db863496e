import type WebSocket from 'ws';
import { idleAfterMs, idleDeadAfterMs, idleHeartbeatMs } from './relay-protocol.ts';

/** Payload of an unsolicited pong: the sender beats less often when idle. Earlier releases send none. */
const mark = Buffer.from([1]);
/** Callbacks for what others send over a watched socket. */
const watched = new WeakMap<WebSocket, { used: () => void; alive: () => void }>();

/** Call after sending payload over a socket watched by keepAlive: a sign of life is then expected soon. */
export function noteSent(socket: WebSocket): void {
  watched.get(socket)?.used();
}

/** Call after sending a ping over a watched socket: it takes the place of a beat. */
export function noteAlive(socket: WebSocket): void {
  watched.get(socket)?.alive();
}

export interface HeartbeatTimes {
  /** Between beats while the socket is used, and for half a minute after. */
  intervalMs: number;
  /** Silence after which the peer counts as dead while the socket is used. */
  deadAfterMs: number;
  /** Without payload for this long the socket is idle, and the longer times apply. */
  idleAfterMs?: number;
  idleIntervalMs?: number;
  idleDeadAfterMs?: number;
}

/**
 * Keeps a relay socket alive and detects a dead peer. Sends an unsolicited pong every `intervalMs` while the send buffer
 * is empty (every `idleIntervalMs` when idle), and calls `dead` after `deadAfterMs` (`idleDeadAfterMs`) of silence. Time
 * during which we paused reading (`socket.isPaused`) does not count. Payload sent after an idle period must bring a sign
 * of life within two intervals. Returns a function that stops it.
 */
export function keepAlive(socket: WebSocket, options: HeartbeatTimes & { dead: () => void }): () => void {
  const { intervalMs, deadAfterMs } = options;
  let heardAt = performance.now();
  let usedAt = heardAt;
  let sentAt = heardAt;
  let tickedAt = heardAt;
  const isIdle = (now: number) => now - usedAt >= (options.idleAfterMs ?? idleAfterMs);
  /** Gives the peer two more intervals to be heard. */
  const extendDeadline = (now: number) => {
    heardAt = Math.max(heardAt, now - deadAfterMs + 2 * intervalMs);
  };
  const used = () => {
    const now = performance.now();
    // After an idle period only a new sign of life shows that the peer is still there.
    if (isIdle(now)) heardAt = now - deadAfterMs + 2 * intervalMs;
    usedAt = now;
  };
  const alive = () => {
    sentAt = performance.now();
  };
  const onMessage = () => {
    heardAt = performance.now();
    usedAt = heardAt;
  };
  const onPing = () => {
    heardAt = performance.now();
    // ws answers pings by itself.
    sentAt = heardAt;
  };
  const onPong = (data: Buffer) => {
    heardAt = performance.now();
    // A peer of an earlier release knows no idle state and would give up after 15 s.
    if (data.length === 0) usedAt = heardAt;
  };
  socket.on('message', onMessage);
  socket.on('ping', onPing);
  socket.on('pong', onPong);
  watched.set(socket, { used, alive });

  const timer = setInterval(() => {
    if (socket.readyState !== socket.OPEN) return;
    const now = performance.now();
    // This process was stopped (suspended, starved of CPU), and what arrived meanwhile is read after this timer. Allow
    // two intervals for it, so that our sleep does not count as silence of the peer and yet a dead connection is found
    // soon. An idle peer may stay silent for long, so ping it.
    if (now - tickedAt > 2 * intervalMs) {
      usedAt = now;
      extendDeadline(now);
      if (!socket.isPaused && socket.bufferedAmount === 0) socket.ping(mark);
      sentAt = now;
    }
    tickedAt = now;
    if (socket.isPaused) onMessage();
    const idle = isIdle(now);
    if (now - heardAt > (idle ? (options.idleDeadAfterMs ?? idleDeadAfterMs) : deadAfterMs)) options.dead();
    // Buffered data serves as a sign of life; a pong would only queue behind it.
    if (socket.bufferedAmount > 0) return;
    if (idle && now - sentAt < (options.idleIntervalMs ?? idleHeartbeatMs)) return;
    sentAt = now;
    socket.pong(mark);
  }, intervalMs);
  timer.unref();
  return () => {
    clearInterval(timer);
    socket.off('message', onMessage);
    socket.off('ping', onPing);
    socket.off('pong', onPong);
    watched.delete(socket);
  };
}
