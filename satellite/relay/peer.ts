import { limitControlFrames, rejectSocket } from '@cde/tunnel/network/socket-limits.ts';
import { keepAlive } from '@cde/tunnel/paths/heartbeat.ts';
import {
  deadAfterMs,
  heartbeatMs,
  type RelayCloseCode,
  relayCloseCodes,
} from '@cde/tunnel/paths/relay-protocol.ts';
import type WebSocket from 'ws';

/** Messages accepted after we closed a socket: those of a busy upload that were already sent. */
const maxLateMessages = 5_000;

/**
 * Sends heartbeats to a peer, and terminates it if it does not answer, sends too many control frames or keeps sending
 * after the close. Also handles its `error` events.
 */
export function watchPeer(socket: WebSocket, times: { heartbeatMs?: number; deadAfterMs?: number }): void {
  limitControlFrames(socket);
  let late = 0;
  socket.on('message', () => {
    if (socket.readyState === socket.OPEN) return;
    late += 1;
    if (late > maxLateMessages) socket.terminate();
  });
  const stop = keepAlive(socket, {
    intervalMs: times.heartbeatMs ?? heartbeatMs,
    deadAfterMs: times.deadAfterMs ?? deadAfterMs,
    dead: () => socket.terminate(),
  });
  // ws closes the socket after an error.
  socket.on('error', () => {});
  socket.once('close', stop);
}

/** Closes a peer's socket with a code. */
export function rejectPeer(socket: WebSocket, code: RelayCloseCode): void {
  // Nothing more is read from a peer that violates the protocol; others get to answer the close frame.
  if (code === 4400) rejectSocket(socket, code, relayCloseCodes[code]);
  else socket.close(code, relayCloseCodes[code]);
}
