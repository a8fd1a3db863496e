import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * Lets this process reach its own relay on the loopback address without TLS: no certificate covers that address, and not
 * every network routes a machine to its own public one. It accepts only WebSockets, which need a ticket as usual.
 */
export async function openLoopbackListener(server: Server): Promise<{ url: string; close(): void }> {
  const listener = createServer((_request, response) => response.writeHead(404).end());
  listener.on('upgrade', (request, socket, head) => server.emit('upgrade', request, socket, head));
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, close: () => listener.close() };
}
