import { noteSent } from '@cde/tunnel/heartbeat.ts';
import { type RelayCloseCode, relayCloseCodes } from '@cde/tunnel/relay-protocol.ts';
import type WebSocket from 'ws';

export interface BridgeEvents {
  toAgent(bytes: number): void;
  toClient(bytes: number): void;
  /** Once, when the pair is over: who ended it, and with which WebSocket close code. */
  ended(by: 'client' | 'agent', code: number): void;
}

/**
 * Copies binary messages between a client and an agent until one closes; then closes the other, in order
 * (1000) if the first was, else saying who was lost. A side that does not read pauses the other once `limit`
 * bytes wait for it, so that a pair never holds more than about twice that.
 */
export function bridge(
  client: WebSocket,
  agent: WebSocket,
  early: readonly Buffer[],
  limit: number,
  events: BridgeEvents,
): void {
  let over = false;
  const toAgent = copy(client, agent, limit, events.toAgent);
  copy(agent, client, limit, events.toClient);
  for (const chunk of early) toAgent(chunk);
  follow('client', client, agent, 4411);
  follow('agent', agent, client, 4410);

  function follow(who: 'client' | 'agent', one: WebSocket, other: WebSocket, lost: RelayCloseCode): void {
    const end = (code: number) => {
      if (over) return;
      over = true;
      if (code === 1000) other.close(1000);
      else other.close(lost, relayCloseCodes[lost]);
      // It may be paused because of the one that is gone; its answer to the close has to be read.
      other.resume();
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
  count: (bytes: number) => void,
): (chunk: Buffer) => void {
  let paused = false;
  const flushed = () => {
    if (!paused || to.bufferedAmount > limit / 4) return;
    paused = false;
    from.resume();
  };
  const forward = (chunk: Buffer) => {
    count(chunk.length);
    to.send(chunk, flushed);
    noteSent(to);
    if (!paused && to.bufferedAmount >= limit) {
      paused = true;
      from.pause();
    }
  };
  from.on('message', (data, isBinary) => {
    // Text is for satellites to say things in; from a peer it means nothing.
    if (isBinary && to.readyState === to.OPEN) forward(data as Buffer);
  });
  return forward;
}
