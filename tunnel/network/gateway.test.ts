import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, createServer as createHttpServer, request } from 'node:http';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { gatewayServerUrl, gatewayStatus, useGateway, withGateway } from './gateway.ts';

/** Gateways as the server of the local provider opens them, and how an agent gets through. */
let folder: string;
const servers: Server[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cde-gateway-'));
  useGateway(folder);
});
afterEach(() => {
  useGateway(undefined);
  for (const server of servers.splice(0)) server.close();
  rmSync(folder, { recursive: true });
});

async function listen(server: Server, name: string): Promise<void> {
  servers.push(server);
  server.listen(join(folder, `${name}.sock`));
  await once(server, 'listening');
}

/** Answers each CONNECT with `status`; what is asked for behind it is answered with `name`. */
async function gateway(name: string, status: number): Promise<void> {
  const behind = createHttpServer((_request, response) => response.end(name));
  const server = createHttpServer();
  server.on('connect', (_request, socket) => {
    socket.write(`HTTP/1.1 ${status} -\r\n\r\n`);
    if (status === gatewayStatus.open) behind.emit('connection', socket);
    else socket.end();
  });
  await listen(server, name);
}

/** Accepts connections, as the kernel does for a process that is stopped, and never answers. */
const hang = (name: string) =>
  listen(
    createServer(() => {}),
    name,
  );

function get(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const agent = withGateway(new Agent(), false);
    const asked = request(url, { agent }, async (response) => {
      const chunks = await response.toArray();
      resolve(Buffer.concat(chunks).toString());
    });
    asked.on('error', reject).end();
  });
}

test('a server that hangs does not hold up the way through another one', async () => {
  await hang('1');
  await hang('2');
  await gateway('3', gatewayStatus.open);
  expect(await get(gatewayServerUrl)).toBe('3');
});

test('the sockets of servers that are gone are passed over', async () => {
  const server = createServer();
  await listen(server, '1');
  server.close();
  await gateway('2', gatewayStatus.open);
  expect(await get(gatewayServerUrl)).toBe('2');
});

test('an address that no gateway leads to is connected to directly, whether or not another server hangs', async () => {
  await hang('1');
  await gateway('2', gatewayStatus.notHere);
  const direct = createHttpServer((_request, response) => response.end('direct'));
  servers.push(direct);
  direct.listen(0, '127.0.0.1');
  await once(direct, 'listening');
  const { port } = direct.address() as { port: number };
  expect(await get(`http://127.0.0.1:${port}`)).toBe('direct');
});

test('an address that a gateway leads to and that does not answer is an error', async () => {
  await gateway('1', gatewayStatus.failed);
  await expect(get('http://127.0.0.1:9')).rejects.toThrow("does not answer the server's gateway");
});

test('without any server the server is not looked for elsewhere', async () => {
  await expect(get(gatewayServerUrl)).rejects.toThrow('no server answers');
});
