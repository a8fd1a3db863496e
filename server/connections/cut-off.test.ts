import { once } from 'node:events';
import { makeClientKey } from '@cde/tunnel/keys.ts';
import { eq } from 'drizzle-orm';
import { v7 } from 'uuid';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import WebSocket from 'ws';
import { users } from '../database/schema.ts';
import { makeLog } from '../log.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import { makeCutOff } from './cut-off.ts';

let server: TestServer;
let url: string;
let cutOff: ReturnType<typeof makeCutOff>;
beforeAll(async () => {
  server = await makeTestServer();
  url = (await server.app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws');
  cutOff = makeCutOff({ database: server.database, relay: server.relay, log: makeLog('silent') });
});
afterAll(async () => {
  cutOff.stop();
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
      satellites: [],
      jti: v7(),
      exp: exp(),
    }),
  );

test('a session that is open ends with the suspension of its user; those of others go on', async () => {
  const ada = await server.addUser('ada');
  const bob = await server.addUser('bob');
  const box = v7();
  const token = await server.keys.tickets.signListenToken({ workspaceId: box, buildId: v7(), exp: exp() });
  const agent = await connect('/relay/v1/listen', token);
  const paired = once(agent, 'message');
  const session = await dial(ada, box);
  await paired;
  const waiting = await dial(ada, v7());
  const other = await dial(bob, v7());
  await cutOff.check();
  expect([session.readyState, waiting.readyState]).toEqual([WebSocket.OPEN, WebSocket.OPEN]);

  await server.database.db.update(users).set({ status: 'suspended' }).where(eq(users.id, ada.id));
  const closed = Promise.all([session, waiting, agent].map((socket) => once(socket, 'close')));
  await cutOff.check();
  expect((await closed).map(([code, reason]) => [code, String(reason)])).toEqual([
    [4403, 'access-ended'],
    [4403, 'access-ended'],
    // The agent is told why: it must not keep the session for a client that comes back.
    [4403, 'access-ended'],
  ]);
  expect(other.readyState).toBe(WebSocket.OPEN);
  await vi.waitFor(() => expect(server.relay.users()).toEqual([bob.id]));
  other.close();
});
