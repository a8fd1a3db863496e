import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { makeClient } from '@cde/api/client.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { PortGateway } from './gateway.ts';
import { makeSatellitePorts } from './ports.ts';

/** What a satellite makes of the server's word. tests/shared-ports.test.ts has the rest, with real servers and agents. */
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
const say = (response: ServerResponse, body: unknown) => {
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

/** A visitor who differs from all others by what they accept. */
function visit(headers: Record<string, string>) {
  const asked = request({
    port: (satellite.address() as AddressInfo).port,
    host: '127.0.0.1',
    headers: { host: '3000--web--ada.dev.example.com', ...headers },
  });
  const closed = new Promise<number | null>((resolve) => {
    asked.once('error', () => resolve(null));
    asked.once('response', (reply: IncomingMessage) => {
      reply.resume();
      resolve(reply.statusCode ?? 0);
    });
  });
  asked.end();
  return closed;
}

test('of however many visitors each is asked after', async () => {
  let waiting = 0;
  let underWay = 0;
  let most = 0;
  answer = ({ head, clientKey }, response) => {
    // No ticket comes: their requests stay open.
    if (clientKey !== undefined) {
      waiting += 1;
      return;
    }
    const workspaceId = `00000000-0000-4000-8000-${head.headers.accept!.padStart(12, '0')}`;
    say(response, { kind: 'forward', workspaceId, port: 3000, origin: 'http://x', isPublic: false });
  };
  const visitors: Promise<number | null>[] = [];
  for (let at = 0; at < 300; at++) {
    visitors.push(visit({ accept: String(at) }));
    // One after the other: so many at once it would turn away.
    await vi.waitFor(() => expect(waiting).toBe(at + 1), { interval: 1, timeout: 20_000 });
  }
  answer = (_, response) => {
    most = Math.max(most, ++underWay);
    setImmediate(() => {
      underWay -= 1;
      say(response, refused);
    });
  };
  const ended = Promise.all(visitors);
  await vi.waitFor(
    async () => {
      // The yes of before is remembered for two seconds.
      await gateway.check();
      expect(await Promise.race([ended, null])).toEqual(visitors.map(() => null));
    },
    { timeout: 8_000 },
  );
  expect(most).toBeLessThanOrEqual(50);
}, 60_000);
