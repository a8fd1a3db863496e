import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { accessRevokedCloseCode } from '@cde/api/events.ts';
import { eq } from 'drizzle-orm';
import { v7 } from 'uuid';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import WebSocket from 'ws';
import { users, workspaces } from '../database/schema.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';

let server: TestServer;
let url: string;
/** A satellite that takes connections and never answers: sessions stay in the making. */
let silent: Server;
const held = new Set<Socket>();

beforeAll(async () => {
  silent = createServer((socket) => held.add(socket)).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  server = await makeTestServer({
    CDE_ACCESS_URL: `http://127.0.0.1:${(silent.address() as AddressInfo).port}`,
  });
  url = (await server.app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws');
});
afterAll(async () => {
  for (const socket of held) socket.destroy();
  silent.close();
  await server.close();
});
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
});
afterEach(() => {
  vi.useRealTimers();
});

async function connect(user: TestUser, path: string): Promise<WebSocket> {
  const socket = new WebSocket(url + path, { headers: { authorization: `Bearer ${user.token}` } });
  await once(socket, 'open');
  return socket;
}
/** A workspace whose agent has registered, and is silent. */
async function addWorkspace(owner: TestUser, name: string): Promise<void> {
  const files = { 'template.yaml': `name: ${owner.username}\nprovider: local\n` };
  const admin = await server.addUser(`admin-of-${owner.username}`, 'owner');
  await server.request(admin, 'POST', '/api/v1/templates', { files });
  const made = await server.request(owner, 'POST', '/api/v1/workspaces', { name, template: owner.username });
  expect(made.status).toBe(201);
  await server.database.db
    .update(workspaces)
    .set({ status: 'running', agentTlsKey: 'A'.repeat(43), agentSshHostKey: 'ssh-ed25519 AAAA' })
    .where(eq(workspaces.id, made.body.id));
}
/** The code and reason that the socket is closed with, within one check interval. */
async function closedAtNextCheck(socket: WebSocket, afterMs = 25_000): Promise<[number, string]> {
  const closed = once(socket, 'close');
  await vi.advanceTimersByTimeAsync(afterMs);
  const [code, reason] = (await closed) as [number, Buffer];
  return [code, reason.toString()];
}
const change = (user: TestUser, changes: Partial<typeof users.$inferInsert>) =>
  server.database.db.update(users).set(changes).where(eq(users.id, user.id));

// A terminal must not outlive its authorization by more than ten seconds.
test.each([
  ['/api/v1/events', 25_000],
  ['/api/v1/workspaces/box/terminal', 8_000],
])('a suspended user loses %s at the next check', async (path, everyMs) => {
  const user = await server.addUser(`u${v7().slice(-6)}`);
  await addWorkspace(user, 'box');
  const socket = await connect(user, path);
  await vi.advanceTimersByTimeAsync(everyMs);
  await vi.waitFor(() => expect(vi.getTimerCount()).toBeGreaterThan(0));
  expect(socket.readyState).toBe(WebSocket.OPEN);
  await change(user, { status: 'suspended' });
  expect(await closedAtNextCheck(socket, everyMs)).toEqual([accessRevokedCloseCode, 'sign in again']);
});

test.each([
  ['/api/v1/events', 25_000],
  ['/api/v1/workspaces/box/terminal', 8_000],
])('a revoked token closes %s at the next check', async (path, everyMs) => {
  const user = await server.addUser(`u${v7().slice(-6)}`);
  await addWorkspace(user, 'box');
  const socket = await connect(user, path);
  const { items } = (await server.request(user, 'GET', '/api/v1/tokens')).body;
  await server.request(user, 'DELETE', `/api/v1/tokens/${items[0].id}`);
  expect(await closedAtNextCheck(socket, everyMs)).toEqual([accessRevokedCloseCode, 'sign in again']);
});

test('tickets are issued only for Ed25519 keys', async () => {
  const user = await server.addUser('keyless');
  await addWorkspace(user, 'box');
  const rsa = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey;
  const keys = [
    '',
    'x',
    '../..',
    rsa.export({ type: 'spki', format: 'der' }).toString('base64url').slice(0, 200),
  ];
  for (const clientKey of keys)
    expect(await server.request(user, 'POST', '/api/v1/workspaces/box/tickets', { clientKey })).toMatchObject(
      { status: 400, body: { code: 'bad-request' } },
    );
});

test('a changed role closes the events socket, because the old role may have seen more', async () => {
  const auditor = await server.addUser('eyes', 'auditor');
  const socket = await connect(auditor, '/api/v1/events');
  await change(auditor, { role: 'member' });
  expect(await closedAtNextCheck(socket)).toEqual([accessRevokedCloseCode, 'connect again']);
});

test('a client that floods the events socket with subscriptions is disconnected', async () => {
  const user = await server.addUser('flood');
  const socket = await connect(user, '/api/v1/events');
  const closed = once(socket, 'close');
  for (let count = 0; count < 5_000; count++)
    socket.send(JSON.stringify({ type: 'subscribe', topic: `workspace:${v7()}` }));
  expect((await closed)[0]).toBe(1008);
});
