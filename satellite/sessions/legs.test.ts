import { afterEach, beforeEach, expect, it } from 'vitest';
import { until } from '../../tests/kit/until.ts';
import { makeWorld, type World } from '../testing.ts';

let world: World;
beforeEach(async () => {
  world = await makeWorld();
});
afterEach(() => world.close());

/** A satellite that is 20 ms from the client and 60 ms from the agent, each by a proxy that delays. */
async function distances() {
  const { port } = await world.satellite();
  const [toClient, toAgent] = [await world.proxy(port, 10), await world.proxy(port, 30)];
  const { listener } = world.agent(toAgent.url);
  await until(() => listener.connected, 'the agent');
  return toClient.url;
}

it('measures each leg of a relay, and the whole', async () => {
  const url = await distances();
  const session = await world.open(url);
  const trip = await session.roundTrip();
  expect(trip).toMatchObject({ kind: 'relay', via: url, agentMsIs: 'measured' });
  // A busy machine only makes them longer.
  expect(trip.clientMs).toBeGreaterThanOrEqual(19);
  expect(trip.agentMs).toBeGreaterThanOrEqual(59);
  expect(trip.totalMs).toBeGreaterThanOrEqual(79);
});

it('takes what the agent last reported if it does not answer for its leg, as one of an earlier release', async () => {
  const url = await distances();
  // An agent does not tell the holder of a limited ticket either.
  const ticket = await world.ticket({ only: ['tcp:localhost:80'] });
  const session = await world.open(url, { ticket, satellites: [{ name: 'eu', url, agentRttMs: 61.5 }] });
  expect(await session.roundTrip()).toMatchObject({ agentMs: 61.5, agentMsIs: 'reported' });
  const unknown = await world.open(url, { ticket });
  expect(await unknown.roundTrip()).toMatchObject({ agentMs: null, agentMsIs: null });
});
