import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface MetadataService {
  port: number;
  close(): void;
}

/** EC2's metadata service, version 2, of one instance. `read` returns what is at a path below /latest/; null: nothing. */
export async function startMetadataService(
  read: (path: string) => Promise<Buffer | string | null>,
): Promise<MetadataService> {
  const tokens = new Set<string>();
  const server = createServer(async (request, reply) => {
    const path = (request.url ?? '').replace(/^\/latest\//, '');
    if (request.method === 'PUT' && path === 'api/token') {
      const token = randomUUID();
      tokens.add(token);
      return void reply.end(token);
    }
    if (!tokens.has(String(request.headers['x-aws-ec2-metadata-token'])))
      return void reply.writeHead(401).end();
    const found = await read(path).catch(() => null);
    reply.writeHead(found === null ? 404 : 200).end(found ?? '');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
