import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { makeClient } from '@cde/api/client.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { PortGateway } from './gateway.ts';
import { makeSatellitePorts } from './ports.ts';

/** How a satellite rechecks visits. tests/shared-ports covers the rest with real servers and agents. */
let server: Server;
let satellite: Server;
let gateway: PortGateway;
let answer: (
  body: { head: { headers: Record<string, string> }; clientKey?: string },
  response: ServerResponse,
) => void;

const listen = async (made: Server): Promise<number> => {
  await once(made.listen(0, '127.0.0.1'), 'listening');
  return (made.address() as AddressInfo).port;
};
const reply = (response: ServerResponse, body: unknown) => {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
};
const refused = {
  kind: 'refuse',
  error: { code: 'port-not-shared', message: 'There is no such port.', requestId: 'x' },
};

beforeEach(async () => {
  server = createServer(async (request, response) => {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece);
    answer(JSON.parse(String(Buffer.concat(pieces))), response);
  });
  gateway = makeSatellitePorts({
    client: makeClient({ url: `http://127.0.0.1:${await listen(server)}`, token: 'x' }),
    portHost: () => '*.dev.example.com',
    isDraining: () => false,
    selfUrl: () => null,
    trustProxy: '',
    log: silentLog,
  });
  satellite = createServer((request, response) => {
    if (!gateway.request(request, response)) response.end('not a port');
  });
  await listen(satellite);
});
afterEach(() => {
  gateway.close();
  for (const each of [satellite, server]) {
    each.closeAllConnections();
    each.close();
  }
});

/** Visits with different Accept headers are different visits. */
function visit(headers: Record<string, string>) {
  const asked = request({
    port: (satellite.address() as AddressInfo).port,
    host: '127.0.0.1',
    headers: { host: '3000--web--ada.dev.example.com', ...headers },
  });
  const closed = new Promise<number | null>((resolve) => {
    asked.once('error', () => resolve(null));
    asked.once('response', (response: IncomingMessage) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
  });
  asked.end();
  return closed;
}

test('rechecks every open visit, at most 50 at a time', async () => {
  let waiting = 0;
  let checking = 0;
  let maxChecking = 0;
  answer = ({ head, clientKey }, response) => {
    // Without a ticket the visit stays open.
    if (clientKey !== undefined) {
      waiting += 1;
      return;
    }
    const workspaceId = `00000000-0000-4000-8000-${head.headers.accept!.padStart(12, '0')}`;
    reply(response, { kind: 'forward', workspaceId, port: 3000, origin: 'http://x', isPublic: false });
  };
  const visitors: Promise<number | null>[] = [];
  // More than twice the limit, and few enough that all are open before the first request for a ticket times out.
  for (let at = 0; at < 120; at++) visitors.push(visit({ accept: String(at) }));
  await vi.waitFor(() => expect(waiting).toBe(120), { timeout: 60_000 });
  answer = (_, response) => {
    maxChecking = Math.max(maxChecking, ++checking);
    setImmediate(() => {
      checking -= 1;
      reply(response, refused);
    });
  };
  const ended = Promise.all(visitors);
  await vi.waitFor(
    async () => {
      // Earlier verdicts are cached for a moment.
      await gateway.check();
      expect(await Promise.race([ended, null])).toEqual(visitors.map(() => null));
    },
    { timeout: 60_000 },
  );
  expect(maxChecking).toBeLessThanOrEqual(50);
}, 200_000);
