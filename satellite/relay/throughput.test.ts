import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { makeWorld, type World } from '../testing.ts';
import { maxProbeBytes } from './throughput.ts';

let world: World;
let url: string;
beforeEach(async () => {
  world = await makeWorld();
  ({ url } = await world.satellite());
});
afterEach(() => world.close());

const token = (userId: string = randomUUID(), exp = Math.floor(Date.now() / 1000) + 60) =>
  world.signer.signProbeToken({ userId, exp });
const headers = (secret: string) => ({
  authorization: `Bearer ${secret}`,
  'content-type': 'application/octet-stream',
});
const down = (secret: string, query = '') =>
  fetch(`${url}/relay/v1/probe/down${query}`, { headers: headers(secret) });
const up = (secret: string, body: Uint8Array<ArrayBuffer>) =>
  fetch(`${url}/relay/v1/probe/up`, { method: 'POST', headers: headers(secret), body });
const lengthOf = async (reply: Response) => (await reply.arrayBuffer()).byteLength;

test('sends what was requested, at most eight megabytes, and accepts as much', async () => {
  expect(await lengthOf(await down(await token(), '?bytes=100000'))).toBe(100_000);
  for (const query of ['', '?bytes=999999999', '?bytes=-1', '?bytes=x', '?bytes=1e99'])
    expect(await lengthOf(await down(await token(), query))).toBe(maxProbeBytes);
  expect(await (await up(await token(), new Uint8Array(300_000))).json()).toEqual({ bytes: 300_000 });
  const more = await up(await token(), new Uint8Array(maxProbeBytes + 1_000_000)).catch(() => null);
  // It stops reading; whether the response still arrives depends on the network.
  if (more) expect((await more.json()).bytes).toBeLessThan(maxProbeBytes + 100_000);
});

test('requires a token, and limits the rate', async () => {
  const ticket = await world.ticket();
  for (const secret of ['', 'x', ticket, await world.listenToken(), await token(randomUUID(), 1)]) {
    expect((await down(secret)).status).toBe(401);
    expect((await up(secret, new Uint8Array(10))).status).toBe(401);
  }
  const ada = randomUUID();
  const busy = await down(await token(ada));
  expect(busy.status).toBe(200);
  const second = await down(await token(ada));
  expect(second.status).toBe(429);
  expect(second.headers.get('retry-after')).toBe('10');
  expect(await second.json()).toMatchObject({ code: 'satellite-overloaded' });
  // An aborted test does not count against the limit.
  await busy.body!.cancel();
  const statuses: number[] = [];
  for (let i = 0; i < 12; i++) {
    let status = 429;
    await vi.waitFor(async () => {
      const reply = await down(await token(ada), '?bytes=1');
      await reply.arrayBuffer();
      status = reply.status;
      if (i < 11) expect(status).toBe(200);
    });
    statuses.push(status);
  }
  expect(statuses.at(-1)).toBe(429);
  expect((await down(await token(), '?bytes=1')).status).toBe(200);
});
