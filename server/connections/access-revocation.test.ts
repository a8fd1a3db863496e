import { once } from 'node:events';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { eq } from 'drizzle-orm';
import { v7 } from 'uuid';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import WebSocket from 'ws';
import { users } from '../database/schema.ts';
import { makeBus } from '../events/bus.ts';
import { makeLog } from '../log.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import { makeAccessRevocation } from './access-revocation.ts';

let server: TestServer;
let url: string;
beforeAll(async () => {
  server = await makeTestServer();
  url = (await server.app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws');
});
afterAll(async () => {
  await server.close();
});

const exp = () => Math.floor(Date.now() / 1000) + 60;
const connect = async (path: string, token: string) => {
  const socket = new WebSocket(url + path, { headers: { authorization: `Bearer ${token}` } });
  await once(socket, 'open');
  return socket;
};
const dial = async (user: TestUser, workspaceId: string) =>
  connect(
    '/relay/v1/dial',
    await server.keys.tickets.signTicket({
      workspaceId,
      workspace: `${user.username}/box`,
      userId: user.id,
      username: user.username,
      agentKey: 'A'.repeat(43),
      clientKey: makeClientKey().publicKey,
      satellites: ['embedded'],
      jti: v7(),
      exp: exp(),
    }),
  );

test("suspending a user closes that user's open sessions and nobody else's", async () => {
  const ada = await server.addUser('ada');
  const bob = await server.addUser('bob');
  const box = v7();
  const token = await server.keys.tickets.signListenToken({
    workspaceId: box,
    buildId: v7(),
    satellite: 'embedded',
    exp: exp(),
  });
  const agent = await connect('/relay/v1/listen', token);
  const paired = once(agent, 'message');
  const session = await dial(ada, box);
  await paired;
  const waiting = await dial(ada, v7());
  const other = await dial(bob, v7());
  expect([session.readyState, waiting.readyState]).toEqual([WebSocket.OPEN, WebSocket.OPEN]);

  const closed = Promise.all([session, waiting, agent].map((socket) => once(socket, 'close')));
  const root = await server.addUser('root', 'owner');
  expect((await server.request(root, 'PATCH', '/api/v1/users/ada', { status: 'suspended' })).status).toBe(
    200,
  );
  expect((await closed).map(([code, reason]) => [code, String(reason)])).toEqual([
    [4403, 'access-ended'],
    [4403, 'access-ended'],
    // The agent gets the reason, so that it does not keep the session for a reconnect.
    [4403, 'access-ended'],
  ]);
  expect(other.readyState).toBe(WebSocket.OPEN);
  await vi.waitFor(() => expect(server.relay.users()).toEqual([bob.id]));
  other.close();
});

test('waiting for revoked users resolves at once, on a change at another replica, or empty', async () => {
  const [cy, dan, eve] = [
    await server.addUser('cy'),
    await server.addUser('dan'),
    await server.addUser('eve'),
  ];
  const bus = makeBus({ url: server.database.url, pool: server.database.pool, log: makeLog('silent') });
  await bus.start();
  const revocation = makeAccessRevocation({
    database: server.database,
    bus,
    log: makeLog('silent'),
    pollMs: 3600_000,
    holdMs: 3600_000,
  });
  const still = new AbortController();
  expect(await revocation.waitForRevoked([], still.signal)).toEqual([]);
  // Unknown users have no access.
  const stranger = v7();
  expect(await revocation.waitForRevoked([cy.id, stranger], still.signal)).toEqual([stranger]);
  expect(await revocation.findRevoked([cy.id, stranger])).toEqual([stranger]);
  expect(await revocation.checkUsers([cy.id, stranger])).toEqual({
    endUsers: [stranger],
    usernames: { [cy.id]: 'cy' },
  });

  const first = revocation.waitForRevoked([cy.id, dan.id], still.signal);
  const second = revocation.waitForRevoked([dan.id], still.signal);
  await revocation.check();
  const root = await server.addUser('root2', 'owner');
  // The HTTP server has its own bus, so this change arrives as from another replica.
  await server.request(root, 'PATCH', '/api/v1/users/cy', { status: 'suspended' });
  expect(await first).toEqual([cy.id]);
  expect(await revocation.findRevoked([cy.id, dan.id])).toEqual([cy.id]);
  // Without the bus, by polling.
  await server.database.db.update(users).set({ status: 'suspended' }).where(eq(users.id, dan.id));
  await revocation.check();
  expect(await second).toEqual([dan.id]);

  const [left, closing] = [new AbortController(), revocation.waitForRevoked([eve.id], still.signal)];
  const gone = revocation.waitForRevoked([eve.id], left.signal);
  left.abort();
  expect(await gone).toEqual([]);
  revocation.close();
  expect(await closing).toEqual([]);
  await bus.close();
});
