import type WebSocket from 'ws';
import { idleAfterMs, idleDeadAfterMs, idleHeartbeatMs } from './relay-protocol.ts';

/** What an unasked pong carries: its sender beats seldom at rest. One of an earlier release carries nothing. */
const mark = Buffer.from([1]);
/** To be told of payload, and of other signs of life, that are sent over a socket. */
const told = new WeakMap<WebSocket, { used: () => void; alive: () => void }>();

/** Whoever sends payload over a socket that keepAlive watches says so: then its other end is to be heard of soon. */
export function noteSent(socket: WebSocket): void {
  told.get(socket)?.used();
}

/** As noteSent, of a ping that somebody else has sent: it does for a beat. */
export function noteAlive(socket: WebSocket): void {
  told.get(socket)?.alive();
}

export interface HeartbeatTimes {
  /** Between two beats while the socket is used, and half a minute after. */
  intervalMs: number;
  /** The silence after which the other end is dead, while it is used. */
  deadAfterMs: number;
  /** Without payload for so long it rests: then one small packet each way, and longer silence. */
  idleAfterMs?: number;
  idleIntervalMs?: number;
  idleDeadAfterMs?: number;
}

/**
 * Keeps a relay socket alive and notices when the other end is gone: sends an unasked pong every
 * `intervalMs` while nothing else is under way (every `idleIntervalMs` at rest), and calls `dead` when nothing was heard
 * for `deadAfterMs` (`idleDeadAfterMs`). Time in which we read nothing by our own choice (`socket.isPaused`) does not count.
 * Payload that is sent after a rest is to bring a sign of life within two intervals. Returns the stopper.
 */
export function keepAlive(socket: WebSocket, options: HeartbeatTimes & { dead: () => void }): () => void {
  const { intervalMs, deadAfterMs } = options;
  let heardAt = performance.now();
  let usedAt = heardAt;
  let sentAt = heardAt;
  let tickedAt = heardAt;
  const rests = (now: number) => now - usedAt >= (options.idleAfterMs ?? idleAfterMs);
  /** The other end has, from now on, no more than two beats' time to be heard. */
  const expect = (now: number) => {
    heardAt = Math.max(heardAt, now - deadAfterMs + 2 * intervalMs);
  };
  const used = () => {
    const now = performance.now();
    // What was heard before says nothing of now: the answer does.
    if (rests(now)) heardAt = now - deadAfterMs + 2 * intervalMs;
    usedAt = now;
  };
  const alive = () => {
    sentAt = performance.now();
  };
  const hear = () => {
    heardAt = performance.now();
  };
  const got = () => {
    hear();
    usedAt = heardAt;
  };
  const asked = () => {
    hear();
    // ws has answered.
    sentAt = heardAt;
  };
  const beaten = (data: Buffer) => {
    hear();
    // One that knows no rest takes us for dead after 15 s.
    if (data.length === 0) usedAt = heardAt;
  };
  socket.on('message', got);
  socket.on('ping', asked);
  socket.on('pong', beaten);
  told.set(socket, { used, alive });

  const timer = setInterval(() => {
    if (socket.readyState !== socket.OPEN) return;
    const now = performance.now();
    // This process stood still (no CPU, asleep): what came meanwhile is read after this timer. Two beats' time
    // for it, so that the other end is not blamed for our sleep, yet a dead connection is found soon after. One that
    // rests says nothing by itself for longer: it is asked.
    if (now - tickedAt > 2 * intervalMs) {
      usedAt = now;
      expect(now);
      if (!socket.isPaused && socket.bufferedAmount === 0) socket.ping(mark);
      sentAt = now;
    }
    tickedAt = now;
    if (socket.isPaused) got();
    const idle = rests(now);
    if (now - heardAt > (idle ? (options.idleDeadAfterMs ?? idleDeadAfterMs) : deadAfterMs)) options.dead();
    // What waits in the buffer is a sign of life itself; a pong behind it would only add to it.
    if (socket.bufferedAmount > 0) return;
    if (idle && now - sentAt < (options.idleIntervalMs ?? idleHeartbeatMs)) return;
    sentAt = now;
    socket.pong(mark);
  }, intervalMs);
  timer.unref();
  return () => {
    clearInterval(timer);
    socket.off('message', got);
    socket.off('ping', asked);
    socket.off('pong', beaten);
    told.delete(socket);
  };
}
