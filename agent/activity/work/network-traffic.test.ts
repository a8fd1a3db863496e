import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, createServer as createHttps, request as requestHttps } from 'node:https';
import { type AddressInfo, connect, createServer, type ListenOptions, type Socket } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { afterEach, expect, test } from 'vitest';
import { until } from '../../../tests/kit/until.ts';
import { countOwnTraffic } from './network-traffic.ts';

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

const own = () => {
  const traffic = countOwnTraffic();
  cleanups.push(traffic.close);
  return traffic;
};

/** Sends as many bytes through a new connection, and closes it. */
async function transfer(bytes: number, options: ListenOptions): Promise<void> {
  let received = 0;
  let accepted: Socket | undefined;
  const server = createServer((socket) => {
    accepted = socket;
    socket.on('data', (chunk) => {
      received += chunk.length;
    });
  });
  await new Promise<void>((resolve) => server.listen(options, resolve));
  const address = server.address() as AddressInfo | string;
  const client =
    typeof address === 'string' ? connect(address) : connect(address.port, options.host ?? '127.0.0.1');
  client.end(Buffer.alloc(bytes));
  await until(() => received === bytes && accepted?.closed && client.closed, 'the end of the transfer');
  await new Promise((resolve) => server.close(resolve));
}

test('connections within the workspace are not own traffic, even after they have closed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cde-traffic-'));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  const { bytes } = own();
  await transfer(100_000, { host: '127.0.0.1', port: 0 });
  await transfer(100_000, { path: join(folder, 'socket') });
  expect(bytes()).toBe(0);
});

const address = Object.values(networkInterfaces())
  .flat()
  .find((each) => each && !each.internal && each.family === 'IPv4')?.address;

test.runIf(address)('HTTPS, over a new connection and one that is kept, once', async () => {
  const server = createHttps(await makeCertificate(), (request, response) => {
    request.resume().on('end', () => response.end());
  });
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  const agent = new Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
  const { port } = server.address() as AddressInfo;
  const { bytes } = own();
  for (let request = 1; request <= 2; request += 1) {
    await new Promise((resolve, reject) =>
      requestHttps({ host: address, port, agent, method: 'POST' }, (response) =>
        response.resume().on('end', resolve),
      )
        .on('error', reject)
        .end(Buffer.alloc(100_000)),
    );
  }
  // Both ends are in this process.
  expect(bytes()).toBeGreaterThanOrEqual(400_000);
  expect(bytes()).toBeLessThan(600_000);
  agent.destroy();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

test.runIf(address)('others are, at both ends, until counting ends', async () => {
  const { bytes, close } = own();
  await transfer(100_000, { host: address!, port: 0 });
  const counted = bytes();
  expect(counted).toBeGreaterThanOrEqual(200_000);
  close();
  await transfer(100_000, { host: address!, port: 0 });
  expect(bytes()).toBe(counted);
});
