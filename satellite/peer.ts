import { keepAlive } from '@cde/tunnel/heartbeat.ts';
import { deadAfterMs, heartbeatMs } from '@cde/tunnel/relay-protocol.ts';
import type WebSocket from 'ws';

/** Sends signs of life to a peer and cuts it off when it gives none; keeps its errors from being unhandled. */
export function watchPeer(socket: WebSocket, times: { heartbeatMs?: number; deadAfterMs?: number }): void {
  const stop = keepAlive(socket, {
    intervalMs: times.heartbeatMs ?? heartbeatMs,
    deadAfterMs: times.deadAfterMs ?? deadAfterMs,
    dead: () => socket.terminate(),
  });
  // ws closes by itself after an error; the close is what we act on.
  socket.on('error', () => {});
  socket.once('close', stop);
}
