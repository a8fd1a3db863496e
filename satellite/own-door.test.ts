import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import Fastify, { type FastifyInstance } from 'fastify';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openOwnDoor } from './own-door.ts';
import { relayPlugin } from './plugin.ts';
import { makeRelay } from './relay.ts';
import { makeWorld, type World } from './testing.ts';

/** A satellite with a certificate that nobody trusts, entered by its own door. */
let world: World;
let app: FastifyInstance;
let door: Awaited<ReturnType<typeof openOwnDoor>>;
beforeAll(async () => {
  world = await makeWorld();
  const { key, cert } = await makeCertificate();
  app = Fastify({ https: { key, cert }, forceCloseConnections: true }) as unknown as FastifyInstance;
  await app.register(relayPlugin, { relay: makeRelay({ ticketKeys: [world.signer.publicKey] }) });
  await app.listen({ host: '127.0.0.1', port: 0 });
  door = await openOwnDoor(app.server);
});
afterAll(async () => {
  await world.close();
  await app.close();
  door.close();
});

test('sessions pass through the door, tickets are asked for, and pages are not served', async () => {
  world.agent(door.url);
  const session = await world.open(door.url);
  expect(await session.ping()).toBeLessThan(5_000);
  await expect(world.open(door.url, { ticket: 'none' })).rejects.toMatchObject({ code: 'ticket-invalid' });
  expect((await fetch(`${door.url}/relay/v1/probe`)).status).toBe(404);
});
