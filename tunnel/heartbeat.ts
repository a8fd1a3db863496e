import type WebSocket from 'ws';

/**
 * Keeps a relay socket alive and notices when the other end is gone: sends an unasked pong every
 * `intervalMs` while nothing else is under way, and calls `dead` when nothing was heard for `deadAfterMs`.
 * Time in which we read nothing by our own choice (`socket.isPaused`) does not count. Returns the stopper.
 */
export function keepAlive(
  socket: WebSocket,
  options: { intervalMs: number; deadAfterMs: number; dead: () => void },
): () => void {
  let heard = performance.now();
  const hear = () => {
    heard = performance.now();
  };
  for (const event of ['message', 'ping', 'pong'] as const) socket.on(event, hear);
  let ticked = heard;
  const timer = setInterval(() => {
    if (socket.readyState !== socket.OPEN) return;
    const now = performance.now();
    // This process stood still (no CPU, asleep): what came meanwhile is read after this timer. Two beats' time
    // for it, so that the other end is not blamed for our sleep, yet a dead connection is found soon after.
    if (now - ticked > 2 * options.intervalMs) {
      heard = Math.max(heard, now - options.deadAfterMs + 2 * options.intervalMs);
    }
    ticked = now;
    if (socket.isPaused) hear();
    else if (now - heard > options.deadAfterMs) options.dead();
    // What waits in the buffer is a sign of life itself; a pong behind it would only add to it.
    if (socket.bufferedAmount === 0) socket.pong();
  }, options.intervalMs);
  timer.unref();
  return () => {
    clearInterval(timer);
    for (const event of ['message', 'ping', 'pong'] as const) socket.off(event, hear);
  };
}
