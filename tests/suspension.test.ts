import type { TicketReply } from '@cde/api/workspaces.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import type { PathKind } from '@cde/tunnel/pipe/path.ts';
import { openSession } from '@cde/tunnel/session/session.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Api, makeApi } from './kit/api.ts';
import { cloneDatabase } from './kit/database.ts';
import { freePort } from './kit/free-port.ts';
import { type Machine, makeMachine } from './kit/machine.ts';
import { until } from './kit/until.ts';

/** A satellite beside the server, an agent, and sessions over each kind of path, all by the real programs. */
let machine: Machine;
let api: Api;
beforeAll(async () => {
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  const server = await machine.start();
  api = await makeApi(machine, server.url);
  const added = await machine.cde('satellite', 'add', 'east');
  const satellite = machine.begin(
    ['satellite', 'start', '--server', server.url, '--listen', `127.0.0.1:${await freePort()}`],
    { CDE_SATELLITE_TOKEN: added.stdout.trim(), CDE_LOG_LEVEL: 'info' },
  );
  await satellite.says('satellite is registered');
  // Its new agent learns of all satellites at once.
  expect(await machine.cde('restart', 'hello')).toMatchObject({ code: 0 });
});
afterAll(() => machine?.remove());

const key = makeClientKey();
async function ticket(): Promise<TicketReply> {
  const reply = await api('POST', '/api/v1/workspaces/hello/tickets', { clientKey: key.publicKey });
  if (reply.status !== 200) throw new Error(JSON.stringify(reply.body));
  // Not over the server's own satellite, which is first.
  return { ...reply.body, satellites: reply.body.satellites.slice(1) };
}

test('sessions over a separate satellite and over direct paths end soon after a suspension', async () => {
  const first = await ticket();
  expect(first.satellites.map(({ name }) => name)).toEqual(['east']);
  const kinds: PathKind[] = ['relay', 'direct-tcp', 'direct-udp'];
  const sessions = await Promise.all(
    kinds.map((want) =>
      openSession({
        ...first,
        clientPrivateKey: key.privateKey,
        steer: { paths: [want] },
        renewTicket: ticket,
      }),
    ),
  );
  for (const [at, session] of sessions.entries())
    await until(
      async () => session.path.kind,
      (kind) => kind === kinds[at],
    );
  expect((await machine.cde('user', 'create', 'second', '--role', 'owner')).code).toBe(0);
  const ended = Promise.all(sessions.map(async (session) => (await session.closed).reason));
  const root = (await api('GET', '/api/v1/users/me')).body.username as string;
  expect((await api('PATCH', `/api/v1/users/${root}`, { status: 'suspended' })).status).toBe(200);
  // Without revocation they would outlive this test.
  expect(await ended).toEqual(['access-ended', 'access-ended', 'access-ended']);

  // The ticket is valid for minutes, but useless: satellite and agent check its user at once.
  const late = openSession({ ...first, clientPrivateKey: key.privateKey });
  const reason = late.then(async (session) => (await session.closed).reason).catch(({ code }) => code);
  expect(await reason).toBe('access-ended');
});
