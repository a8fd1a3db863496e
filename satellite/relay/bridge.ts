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
 * Messages below this draw on the budget of small ones: each costs the satellite as much as one of 64 KiB. Larger
 * ones are bounded by what the other side takes.
 */
const smallBytes = 1024;
/** Small messages of one turn of the event loop are merged into messages of about this size. */
const mergedBytes = 32 * 1024;

export interface BridgeEvents {
  toAgent(bytes: number): void;
  toClient(bytes: number): void;
  /** Once, when the pair is over: who ended it, and with which WebSocket close code. */
  ended(by: 'client' | 'agent', code: number): void;
}

/**
 * Copies binary messages between a client and an agent until one closes; then closes the other, in order
 * (1000) if the first was, else saying who was lost. A side that does not read pauses the other once `limit`
 * bytes wait for it, so that a pair never holds more than about twice that. A side that sends small messages faster
 * than its budget is read more slowly.
 */
export function bridge(
  client: WebSocket,
  agent: WebSocket,
  early: readonly Buffer[],
  limit: number,
  budgets: { client: Bucket; agent: Bucket },
  events: BridgeEvents,
): void {
  let over = false;
  const toAgent = copy(client, agent, limit, budgets.client, events.toAgent);
  const toClient = copy(agent, client, limit, budgets.agent, events.toClient);
  for (const chunk of early) toAgent.forward(chunk);
  follow('client', client, agent, 4411);
  follow('agent', agent, client, 4410);

  function follow(who: 'client' | 'agent', one: WebSocket, other: WebSocket, lost: RelayCloseCode): void {
    const end = (code: number) => {
      if (over) return;
      over = true;
      toAgent.flush();
      toClient.flush();
      if (code === 1000) other.close(1000);
      else other.close(lost, relayCloseCodes[lost]);
      // It may be paused because of the one that is gone; its answer to the close has to be read.
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
  /** Small messages that came after the first one of this turn; null before there was one. */
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
    // Text is for satellites to say things in, and no pipe sends an empty message.
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

  /** The first goes at once. Sending each of those behind it by itself would cost 10 µs, and a pipe may be cut anywhere. */
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
