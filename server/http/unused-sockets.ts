import type { IncomingMessage, Server } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Connections on which nothing was asked yet: clients open such ahead of need. Node counts them as busy, so that a server
 * that closes would wait a minute for them. The returned function ends them, and those that come from then on.
 */
export function trackUnusedSockets(server: Server): () => void {
  const unused = new Set<Socket>();
  let closing = false;
  const used = (request: IncomingMessage) => unused.delete(request.socket);
  server.on('connection', (socket: Socket) => {
    if (closing) return socket.destroy();
    unused.add(socket);
    socket.once('close', () => unused.delete(socket));
  });
  server.on('request', used);
  server.on('upgrade', used);
  return () => {
    closing = true;
    for (const socket of unused) socket.destroy();
  };
}
