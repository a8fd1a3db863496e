import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { clientFrame, floodSocket, opcodes, repeat, watchLoop } from '@cde/tunnel/network/testing-flood.ts';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import WebSocket from 'ws';
import { workspaces } from './database/schema.ts';
import { makeTestServer, type TestServer, type TestUser } from './testing.ts';

/** Abuse of the server's WebSockets by signed-in users. */
let server: TestServer;
let url: string;
let user: TestUser;
/** A satellite that takes connections and never answers: sessions stay in the making. */
let silent: Server;
const held = new Set<Socket>();

beforeAll(async () => {
  silent = createServer((socket) => held.add(socket)).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  server = await makeTestServer({
    CDE_ACCESS_URL: `http://127.0.0.1:${(silent.address() as AddressInfo).port}`,
  });
  url = await server.app.listen({ port: 0, host: '127.0.0.1' });
  const admin = await server.addUser('admin', 'owner');
  await server.request(admin, 'POST', '/api/v1/templates', {
    files: { 'template.yaml': 'name: small\nprovider: local\n' },
  });
  user = await server.addUser('ada');
  await addWorkspace(user);
});

/** The user's workspace `box`, whose agent has registered and stays silent. */
async function addWorkspace(owner: TestUser): Promise<void> {
  const made = await server.request(owner, 'POST', '/api/v1/workspaces', { name: 'box', template: 'small' });
  await server.database.db
    .update(workspaces)
    .set({ status: 'running', agentTlsKey: 'A'.repeat(43), agentSshHostKey: 'ssh-ed25519 AAAA' })
    .where(eq(workspaces.id, made.body.id));
}
afterAll(async () => {
  for (const socket of held) socket.destroy();
  silent.close();
  await server.close();
});

const megabytes = 2 * 1024 * 1024;
const events = '/api/v1/events';
const terminal = '/api/v1/workspaces/box/terminal';

/** Floods a socket of the user while polling /healthz. */
async function flood(path: string, frames: Buffer, headers: Record<string, string> = {}) {
  let over = false;
  const healthy = (async () => {
    let answers = 0;
    do {
      expect((await fetch(`${url}/healthz`)).status).toBe(200);
      answers += 1;
    } while (!over);
    return answers;
  })();
  // Warm up, so that loading and compiling for the first request is not measured.
  await fetch(`${url}/healthz`);
  const loop = watchLoop();
  const ended = await floodSocket(url + path, { authorization: `Bearer ${user.token}`, ...headers }, frames);
  over = true;
  expect(await healthy).toBeGreaterThan(0);
  return { ...ended, ...loop.stop() };
}

describe.each([
  [events, 'nonsense', clientFrame(opcodes.text, 'x'), 'invalid message'],
  [events, 'empty messages', clientFrame(opcodes.binary), 'invalid message'],
  [events, 'pings', clientFrame(opcodes.ping), null],
  [events, 'pongs', clientFrame(opcodes.pong), 'too many control frames'],
  [events, 'empty fragments', clientFrame(opcodes.continuation, '', false), null],
  [
    events,
    'topics to leave',
    clientFrame(opcodes.text, '{"type":"unsubscribe","topic":"a"}'),
    'too many messages at once',
  ],
  [terminal, 'nonsense', clientFrame(opcodes.text, 'x'), 'not a message of a terminal'],
  [terminal, 'keys', clientFrame(opcodes.binary, 'x'), 'too many messages'],
  [terminal, 'empty messages', clientFrame(opcodes.binary), 'too many messages'],
  [
    terminal,
    'sizes',
    clientFrame(opcodes.text, '{"type":"resize","cols":80,"rows":24}'),
    'too many messages',
  ],
  [terminal, 'pongs', clientFrame(opcodes.pong), 'too many control frames'],
])('2 MB for %s', (path, what, frame, reason) => {
  test(`${what}: only the first few are read, and other requests are not delayed`, async () => {
    const frames = [repeat(frame, megabytes)];
    if (what === 'empty fragments') frames.unshift(clientFrame(opcodes.text, '', false));
    const ended = await flood(path, Buffer.concat(frames));
    if (reason) expect(ended.close).toEqual({ code: 1008, reason });
    expect(ended.bytesRead).toBeLessThan(512 * 1024);
    expect(ended.maxBlockedMs).toBeLessThan(100);
  });
});

test('an oversized message closes the events socket', async () => {
  const socket = new WebSocket(url.replace('http', 'ws') + events, {
    headers: { authorization: `Bearer ${user.token}` },
  });
  await once(socket, 'open');
  socket.send(JSON.stringify({ type: 'subscribe', topic: 'x'.repeat(2000) }));
  expect(await once(socket, 'close')).toMatchObject([1009, expect.anything()]);
});

test.each([
  events,
  terminal,
])('of %s one user has a hundred at most, and others have theirs', async (path) => {
  const greedy = await server.addUser(`greedy-${path.length}`);
  await addWorkspace(greedy);
  const open = (who: TestUser) =>
    new WebSocket(url.replace('http', 'ws') + path, { headers: { authorization: `Bearer ${who.token}` } });
  const sockets = await Promise.all(
    Array.from({ length: 100 }, async () => {
      const socket = open(greedy);
      await once(socket, 'open');
      return socket;
    }),
  );
  const refused = open(greedy);
  refused.on('error', () => {});
  const [, response] = await once(refused, 'unexpected-response');
  let body = '';
  for await (const chunk of response) body += chunk;
  expect(response.statusCode).toBe(429);
  expect(response.headers['retry-after']).toBe('10');
  expect(JSON.parse(body)).toMatchObject({ code: 'too-many-connections' });

  const other = open(user);
  await once(other, 'open');
  // Closing one makes room for another.
  sockets[0]!.terminate();
  await expect
    .poll(
      async () => {
        const again = open(greedy);
        again.on('error', () => {});
        return new Promise((resolve) => {
          again.once('open', () => resolve('open'));
          again.once('unexpected-response', () => resolve('refused'));
        });
      },
      { timeout: 20_000 },
    )
    .toBe('open');
  other.terminate();
  for (const socket of sockets) socket.terminate();
});
