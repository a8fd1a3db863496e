import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import Fastify, { type FastifyInstance } from 'fastify';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeWorld, type World } from '../testing.ts';
import { openLoopbackListener } from './loopback-listener.ts';
import { relayPlugin } from './plugin.ts';
import { makeRelay } from './relay.ts';

/** A satellite with an untrusted certificate, reached through its loopback listener. */
let world: World;
let app: FastifyInstance;
let listener: Awaited<ReturnType<typeof openLoopbackListener>>;
beforeAll(async () => {
  world = await makeWorld();
  const { key, cert } = await makeCertificate();
  app = Fastify({ https: { key, cert }, forceCloseConnections: true }) as unknown as FastifyInstance;
  await app.register(relayPlugin, { relay: makeRelay({ ticketKeys: [world.signer.publicKey] }) });
  await app.listen({ host: '127.0.0.1', port: 0 });
  listener = await openLoopbackListener(app.server);
});
afterAll(async () => {
  await world.close();
  await app.close();
  listener.close();
});

test('relays sessions with a valid ticket and serves no pages', async () => {
  world.agent(listener.url);
  const session = await world.open(listener.url);
  expect(await session.ping()).toBeLessThan(5_000);
  await expect(world.open(listener.url, { ticket: 'none' })).rejects.toMatchObject({
    code: 'ticket-invalid',
  });
  expect((await fetch(`${listener.url}/relay/v1/probe`)).status).toBe(404);
});
