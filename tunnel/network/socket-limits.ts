import type WebSocket from 'ws';
import { makeBucket, type Rate } from './token-bucket.ts';

/** WebSocket close codes (RFC 6455): the peer violated our policy, or sent too large a message. */
export const policyViolation = 1008;
const messageTooLarge = 1009;

/** How long a rejected peer has to read the close reason before the socket is terminated. */
const closeGraceMs = 500;

type PauseReason = 'backpressure' | 'budget' | 'rejected';
const pauses = new WeakMap<WebSocket, Set<PauseReason>>();

/** Stops reading a socket until every reason has been released. */
export function holdReading(socket: WebSocket, reason: PauseReason): void {
  const reasons = pauses.get(socket);
  if (reasons) reasons.add(reason);
  else pauses.set(socket, new Set([reason]));
  socket.pause();
}

export function releaseReading(socket: WebSocket, reason: PauseReason): void {
  const reasons = pauses.get(socket);
  reasons?.delete(reason);
  if (!reasons?.size) socket.resume();
}

/** True once the socket was rejected; whatever its peer still sends is ignored. */
export const isRejected = (socket: WebSocket): boolean => pauses.get(socket)?.has('rejected') ?? false;

/**
 * Closes a socket whose peer breaks the rules, and stops reading from it. Otherwise ws would parse everything until
 * the peer answers the close, which a flooding peer never does. Data already read (at most 64 KiB) is parsed without
 * listeners.
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
 * A peer sends a pong every 5 s and a few pings. After a long pause in reading, those of hours arrive at once; the
 * burst allows for that, and a flood exceeds it.
 */
const controlFrames: Rate = { perSecond: 100, burst: 10_000 };

/** Rejects a socket whose peer floods it with pings or pongs. */
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
  /** Message payload. */
  bytes?: Rate;
  /** In bytes. */
  maxMessage?: number;
}

/** Rejects a socket that exceeds its budget. Call before adding any other listener. */
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
