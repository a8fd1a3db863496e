import {
  holdReading,
  isRejected,
  policyViolation,
  rejectSocket,
  releaseReading,
} from '@cde/tunnel/network/socket-limits.ts';
import type { Bucket } from '@cde/tunnel/network/token-bucket.ts';
import { noteSent } from '@cde/tunnel/paths/heartbeat.ts';
import { type RelayCloseCode, relayCloseCodes } from '@cde/tunnel/paths/relay-protocol.ts';
import type WebSocket from 'ws';

/**
 * Messages below this size count against the budget for small messages, since each costs the satellite as much as one of
 * 64 KiB. Larger ones are limited by backpressure.
 */
const smallBytes = 1024;
/** Small messages of one event-loop turn are merged into messages of about this size. */
const mergedBytes = 32 * 1024;

export interface BridgeEvents {
  toAgent(bytes: number): void;
  toClient(bytes: number): void;
  /** Called once: which side closed first, and with which WebSocket close code. */
  ended(by: 'client' | 'agent', code: number): void;
}

/**
 * Copies binary messages between a client and an agent until one closes, then closes the other: with 1000 after a clean
 * close, otherwise with a code that names the side that was lost. A side that does not read pauses the other once `limit`
 * bytes are buffered for it, so a session buffers about twice that at most. A side that exceeds its budget for small
 * messages is throttled.
 */
export function bridge(
  client: WebSocket,
  agent: WebSocket,
  early: readonly Buffer[],
  limit: number,
  budgets: { client: Bucket; agent: Bucket },
  events: BridgeEvents,
): void {
  let ended = false;
  const toAgent = copy(client, agent, limit, budgets.client, events.toAgent);
  const toClient = copy(agent, client, limit, budgets.agent, events.toClient);
  for (const chunk of early) toAgent.forward(chunk);
  follow('client', client, agent, 4411);
  follow('agent', agent, client, 4410);

  function follow(who: 'client' | 'agent', one: WebSocket, other: WebSocket, lost: RelayCloseCode): void {
    const end = (code: number) => {
      if (ended) return;
      ended = true;
      toAgent.flush();
      toClient.flush();
      if (code === 1000) other.close(1000);
      else other.close(lost, relayCloseCodes[lost]);
      // Its reading may still be paused, and its answer to the close frame must be read.
      releaseReading(other, 'backpressure');
      events.ended(who, code);
    };
    if (one.readyState === one.CLOSED) end(1006);
    else one.once('close', end);
  }
}

function copy(
  from: WebSocket,
  to: WebSocket,
  limit: number,
  small: Bucket,
  count: (bytes: number) => void,
): { forward(chunk: Buffer): void; flush(): void } {
  let paused = false;
  /** Small messages after the first of this event-loop turn; null before the first. */
  let merged: Buffer[] | null = null;
  let mergedLength = 0;
  let slowed: NodeJS.Timeout | undefined;
  from.once('close', () => clearTimeout(slowed));
  const flushed = () => {
    if (!paused || to.bufferedAmount > limit / 4) return;
    paused = false;
    releaseReading(from, 'backpressure');
  };
  const forward = (chunk: Buffer) => {
    count(chunk.length);
    to.send(chunk, flushed);
    noteSent(to);
    if (!paused && to.bufferedAmount >= limit) {
      paused = true;
      holdReading(from, 'backpressure');
    }
  };
  from.on('message', (data, isBinary) => {
    const chunk = data as Buffer;
    if (isRejected(from)) return;
    // Text messages are reserved for satellites, and a pipe sends no empty ones.
    if (!isBinary || chunk.length === 0)
      return rejectSocket(from, policyViolation, 'not a message of a pipe');
    if (chunk.length < smallBytes && !small.take(1) && !slowed) {
      holdReading(from, 'budget');
      slowed = setTimeout(() => {
        slowed = undefined;
        releaseReading(from, 'budget');
      }, small.waitMs());
    }
    if (chunk.length < smallBytes) merge(chunk);
    else {
      flush();
      if (to.readyState === to.OPEN) forward(chunk);
    }
  });

  /** Sends the first message at once and merges the rest: each send costs 10 µs, and a pipe may be split anywhere. */
  function merge(chunk: Buffer): void {
    if (merged === null) {
      merged = [];
      setImmediate(() => {
        flush();
        merged = null;
      });
      if (to.readyState === to.OPEN) forward(chunk);
      return;
    }
    merged.push(chunk);
    mergedLength += chunk.length;
    if (mergedLength >= mergedBytes) flush();
  }

  function flush(): void {
    if (!merged || merged.length === 0) return;
    const chunk = Buffer.concat(merged, mergedLength);
    merged = [];
    mergedLength = 0;
    if (to.readyState === to.OPEN) forward(chunk);
  }

  return { forward, flush };
}
