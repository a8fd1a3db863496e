import { limitControlFrames } from '@cde/tunnel/network/socket-limits.ts';
import { keepAlive } from '@cde/tunnel/paths/heartbeat.ts';
import { deadAfterMs, heartbeatMs } from '@cde/tunnel/paths/relay-protocol.ts';
import type WebSocket from 'ws';

/** Messages that may still arrive once we have closed a socket: what was on the way of a busy upload. */
const maxLateMessages = 5_000;

/**
 * Sends signs of life to a peer and cuts it off when it gives none, or when it sends too many of its own, or goes on
 * sending after the close; keeps its errors from being unhandled.
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
  // ws closes by itself after an error; the close is what we act on.
  socket.on('error', () => {});
  socket.once('close', stop);
}
