import type WebSocket from 'ws';
import { makeBucket, type Rate } from './token-bucket.ts';

/** RFC 6455: what a peer sent breaks our rules, or is larger than we take. */
export const policyViolation = 1008;
export const messageTooLarge = 1009;

/** How long a rejected peer has to read why, before it is cut off. */
const closeGraceMs = 500;

type Why = 'backpressure' | 'budget' | 'rejected';
const holds = new WeakMap<WebSocket, Set<Why>>();

/** Stops reading a socket. It is read again once every reason is gone. */
export function holdReading(socket: WebSocket, why: Why): void {
  const reasons = holds.get(socket);
  if (reasons) reasons.add(why);
  else holds.set(socket, new Set([why]));
  socket.pause();
}

export function releaseReading(socket: WebSocket, why: Why): void {
  const reasons = holds.get(socket);
  reasons?.delete(why);
  if (!reasons?.size) socket.resume();
}

/** True once the socket was rejected: what its peer sent before it knew is ignored. */
export const isRejected = (socket: WebSocket): boolean => holds.get(socket)?.has('rejected') ?? false;

/**
 * Closes a socket whose peer breaks the rules. Nothing more is read from it: ws would otherwise parse all that
 * arrives until the peer answers the close, which a peer that floods never does. What it has read already (64 KiB
 * at most) is parsed without listeners.
 */
export function rejectSocket(socket: WebSocket, code: number, reason: string): void {
  if (isRejected(socket)) return;
  if (socket.readyState === socket.OPEN) socket.close(code, reason);
  for (const event of ['message', 'ping', 'pong']) socket.removeAllListeners(event);
  holdReading(socket, 'rejected');
  const timer = setTimeout(() => socket.terminate(), closeGraceMs);
  timer.unref();
  socket.once('close', () => clearTimeout(timer));
}

/**
 * A peer sends a pong each 5 s, and a few pings. Those of hours may arrive at once, after a time in which we did not
 * read; a flood does not stop there.
 */
const controlFrames: Rate = { perSecond: 100, burst: 10_000 };

/** Rejects a socket whose peer floods it with pings and pongs. */
export function limitControlFrames(socket: WebSocket, rate: Rate = controlFrames): void {
  const bucket = makeBucket(rate);
  const count = () => {
    if (!bucket.take(1)) rejectSocket(socket, policyViolation, 'too many control frames');
  };
  socket.on('ping', count);
  socket.on('pong', count);
}

export interface SocketBudget {
  frames: Rate;
  /** Of messages. */
  bytes?: Rate;
  /** The largest message. */
  maxMessage?: number;
}

/** Rejects a socket that sends more than its budget. Call before any other listener is added. */
export function limitSocket(
  socket: WebSocket,
  budget: SocketBudget,
  now: () => number = () => performance.now(),
): void {
  const frames = makeBucket(budget.frames, now);
  const bytes = budget.bytes && makeBucket(budget.bytes, now);
  limitControlFrames(socket);
  socket.on('message', (data: Buffer) => {
    if (!frames.take(1)) rejectSocket(socket, policyViolation, 'too many messages');
    else if (budget.maxMessage !== undefined && data.length > budget.maxMessage)
      rejectSocket(socket, messageTooLarge, `at most ${budget.maxMessage} bytes a message`);
    else if (bytes && !bytes.take(data.length)) rejectSocket(socket, policyViolation, 'too much data');
  });
}
