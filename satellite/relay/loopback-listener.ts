import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * A door to the satellite's own relay for this process alone, on the loopback address, without TLS: nobody's certificate
 * is for that address, and not every network leads from a machine to its own public one. It takes WebSockets and nothing
 * else, which show their tickets as everybody's do.
 */
export async function openLoopbackListener(server: Server): Promise<{ url: string; close(): void }> {
  const listener = createServer((_request, response) => response.writeHead(404).end());
  listener.on('upgrade', (request, socket, head) => server.emit('upgrade', request, socket, head));
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, close: () => listener.close() };
}
