import type { IncomingMessage, Server } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Tracks connections without a request: clients open some ahead of need. Node counts them as active, so closing the server
 * would wait a minute for them. The returned function destroys them, and every connection accepted afterwards.
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
