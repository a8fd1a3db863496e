import { randomUUID } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { type Satellite, startSatellite } from '@cde/satellite/program.ts';
import { readSettings } from '@cde/satellite/settings.ts';
import { fastClock, makeQueue } from '@cde/satellite/testing.ts';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { listenRelay } from '@cde/tunnel/paths/relay.ts';
import { relayPaths } from '@cde/tunnel/paths/relay-protocol.ts';
import { openSocket } from '@cde/tunnel/paths/socket.ts';
import { makeSessionRegistry } from '@cde/tunnel/session/registry.ts';
import { openSession } from '@cde/tunnel/session/session.ts';
import { eq } from 'drizzle-orm';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { users } from '../database/schema.ts';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';

let server: TestServer;
let url: string;
let admin: TestUser;
const closers: (() => unknown)[] = [];
beforeAll(async () => {
  server = await makeTestServer();
  await server.app.listen({ host: '127.0.0.1', port: 0 });
  url = `http://127.0.0.1:${(server.app.server.address() as AddressInfo).port}`;
  admin = await server.addUser('root', 'owner');
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});
afterAll(() => server.close());

const api = (method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, body?: unknown) =>
  server.request(admin, method, `/api/v1/satellites${path}`, body);

async function add(name: string, region = 'east'): Promise<string> {
  const made = await api('POST', '', { name, region });
  expect(made.status).toBe(201);
  return made.body.token;
}

/** A satellite whose heartbeat is a hundred times as fast. */
async function start(token: string, flags: string[] = []) {
  const refused = vi.fn();
  const satellite: Satellite = await startSatellite({
    settings: readSettings(['--server', url, '--token', token, '--listen', '127.0.0.1:0', ...flags], {
      CDE_LOG_LEVEL: 'silent',
      CDE_SATELLITE_DRAIN_SECONDS: '1',
    }),
    version: '1.2.3',
    onRejected: refused,
    clock: fastClock,
  });
  closers.push(() => satellite.stop());
  return { satellite, refused };
}

/** The satellite's answer to a STUN Binding request. */
async function stunSays(of: string): Promise<Buffer> {
  const { hostname, port } = new URL(of);
  const socket = createSocket('udp4');
  socket.send(Buffer.from('000100002112a442000102030405060708090a0b', 'hex'), Number(port), hostname);
  const [answer] = (await once(socket, 'message')) as [Buffer];
  socket.close();
  return answer;
}

const state = async (name: string) => (await api('GET', `/${name}`)).body.state;
const becomes = (name: string, wanted: string) =>
  vi.waitFor(async () => expect(await state(name)).toBe(wanted), { timeout: 10_000, interval: 20 });

test('is added, registers, reports, drains, serves again, stops and is removed', async () => {
  const token = await add('tokyo', 'ap');
  expect(token).toMatch(/^cde_satellite_/);
  expect((await api('POST', '', { name: 'tokyo' })).body.code).toBe('satellite-name-taken');
  expect((await api('POST', '', { name: 'embedded' })).body.code).toBe('bad-request');
  expect(await state('tokyo')).toBe('new');

  const { satellite, refused } = await start(token);
  await becomes('tokyo', 'online');
  await vi.waitFor(async () =>
    expect((await api('GET', '/tokyo')).body).toMatchObject({
      region: 'ap',
      url: satellite.url,
      // The same port as TCP.
      stun: new URL(satellite.url).host,
      version: '1.2.3',
      load: { sessions: 0, agents: 0 },
    }),
  );
  expect((await fetch(`${satellite.url}/healthz`)).status).toBe(200);
  expect((await fetch(`${satellite.url}/readyz`)).status).toBe(200);
  expect(await stunSays(satellite.url)).toHaveLength(32);

  expect((await api('POST', '/tokyo/drain', {})).body).toMatchObject({ draining: true });
  await becomes('tokyo', 'drained');
  expect((await fetch(`${satellite.url}/readyz`)).status).toBe(503);
  expect((await fetch(`${satellite.url}/healthz`)).status).toBe(200);
  await api('POST', '/tokyo/drain', { draining: false });
  await becomes('tokyo', 'online');
  expect((await fetch(`${satellite.url}/readyz`)).status).toBe(200);

  server.clock.at = new Date(server.clock.at.getTime() + 60_000);
  await becomes('tokyo', 'online');
  expect((await api('DELETE', '/tokyo')).status).toBe(204);
  await vi.waitFor(() => expect(refused).toHaveBeenCalledOnce());
  expect((await api('GET', '/tokyo')).body.code).toBe('satellite-not-found');
  const audited = await server.request(admin, 'GET', '/api/v1/audit?target=tokyo');
  expect(audited.body.items.map(({ action }: { action: string }) => action)).toEqual([
    'satellite.remove',
    'satellite.drain',
    'satellite.drain',
    'satellite.add',
  ]);
  expect(JSON.stringify(audited.body)).not.toContain(token);
});

test('keeps the region that it was added with or first registered in', async () => {
  const region = async (name: string) => (await api('GET', `/${name}`)).body.region;
  const refusals = async (token: string, said: string) => {
    const { refused } = await start(token, ['--region', said]);
    await vi.waitFor(() => expect(refused).toHaveBeenCalledOnce());
    return refused.mock.calls[0]![0].body;
  };
  const added = await add('nagoya', 'ap');
  expect(await refusals(added, 'eu')).toMatchObject({
    code: 'satellite-region-fixed',
    detail: 'It is in ap, but was started with --region eu.',
  });
  expect(await state('nagoya')).toBe('new');
  const { satellite } = await start(added, ['--region', 'ap']);
  await becomes('nagoya', 'online');
  await satellite.stop();

  const without = await add('sapporo', '');
  await start(without, ['--region', 'north']);
  await becomes('sapporo', 'online');
  expect(await region('sapporo')).toBe('north');
  expect(await refusals(without, 'ap')).toMatchObject({ code: 'satellite-region-fixed' });
  expect(await region('sapporo')).toBe('north');
});

test('serves browsers only if an administrator allows it, and ports under a name of its own', async () => {
  await add('kyoto');
  await add('osaka');
  const put = (name: string, web: unknown) => api('PUT', `/${name}/web`, { web });
  expect((await api('GET', '/kyoto')).body.web).toBeNull();
  const on = { portHost: '*.kyoto.dev.example.com' };
  expect((await put('kyoto', on)).body.web).toEqual(on);
  expect((await put('kyoto', on)).body.web).toEqual(on);
  expect((await put('osaka', on)).body).toMatchObject({
    code: 'port-host-taken',
    detail: expect.stringContaining('kyoto'),
  });
  // This one belongs to the server itself, because its access URL is a loopback address.
  expect((await put('osaka', { portHost: '*.localhost' })).body).toMatchObject({
    code: 'port-host-taken',
    detail: expect.stringContaining('--port-host'),
  });
  expect((await put('osaka', { portHost: 'dev.example.com' })).body.code).toBe('bad-request');
  expect((await put('osaka', { portHost: null })).body.web).toEqual({ portHost: null });
  expect((await put('kyoto', null)).body.web).toBeNull();
  expect((await put('osaka', on)).body.web).toEqual(on);
  expect((await put('nara', on)).body.code).toBe('satellite-not-found');
  const audited = await server.request(admin, 'GET', '/api/v1/audit?target=kyoto');
  expect(
    audited.body.items.map(({ action, after }: { action: string; after: unknown }) => [action, after]),
  ).toEqual([
    ['satellite.web', { web: null }],
    ['satellite.web', { web: on }],
    ['satellite.add', expect.anything()],
  ]);
  for (const name of ['kyoto', 'osaka']) expect((await api('DELETE', `/${name}`)).status).toBe(204);
});

test('agents and clients get the serving satellites; an unreachable one stays listed last for a while', async () => {
  // The satellites of other tests may still be listed for a while.
  const own = ['a-east', 'b-west'];
  const listed = async () => (await serving()).map(({ name }) => name).filter((name) => own.includes(name));
  const [east, west] = [await add('a-east'), await add('b-west')];
  const first = await start(east);
  await start(west);
  await becomes('a-east', 'online');
  await becomes('b-west', 'online');
  expect(await listed()).toEqual(['a-east', 'b-west']);

  await first.satellite.stop();
  expect(await state('a-east')).toBe('stopping');
  expect(await listed()).toEqual(['b-west']);

  // As after kill -9: its last report says that it serves.
  await server.database.pool.query(
    "UPDATE satellites SET condition = 'serving', seen_at = $1 WHERE name = 'a-east'",
    [new Date(server.clock.at.getTime() - 60_000)],
  );
  expect(await state('a-east')).toBe('away');
  expect((await api('GET', '/a-east')).body.load).toBeNull();
  expect(await listed()).toEqual(['b-west', 'a-east']);
  await server.database.pool.query("UPDATE satellites SET seen_at = $1 WHERE name = 'a-east'", [
    new Date(server.clock.at.getTime() - 700_000),
  ]);
  expect(await listed()).toEqual(['b-west']);
});

/** The satellites that the registry adds to the embedded ones. */
async function serving() {
  const { makeSatelliteStore } = await import('./store.ts');
  return makeSatelliteStore({ database: server.database, now: () => server.clock.at }).listServing();
}

test('sessions move elsewhere on a drain, and close when their user is suspended', async () => {
  const ada = await server.addUser('ada');
  const [one, other] = [await start(await add('one')), await start(await add('other'))];
  await becomes('one', 'online');
  await becomes('other', 'online');

  const certificate = await makeCertificate();
  const key = makeClientKey();
  const [workspaceId, exp] = [randomUUID(), Math.floor(Date.now() / 1000) + 600];
  const registry = makeSessionRegistry({
    tlsKey: certificate.key,
    tlsCert: certificate.cert,
    agentKey: certificate.fingerprint,
    workspaceId,
    ticketKeys: [server.keys.tickets.publicKey],
    onStream: (_target, stream) => {
      stream.pipe(stream);
      return undefined;
    },
  });
  const ids = await Promise.all(['one', 'other'].map(async (name) => (await api('GET', `/${name}`)).body.id));
  const satellites = [one, other].map(({ satellite }, index) => ({
    id: ids[index] as string,
    name: ['one', 'other'][index] as string,
    url: satellite.url,
  }));
  for (const place of satellites) {
    const listener = listenRelay({
      url: place.url,
      listenToken: () =>
        server.keys.tickets.signListenToken({ workspaceId, buildId: workspaceId, satellite: place.id, exp }),
      onPath: registry.accept,
      clock: fastClock,
    });
    closers.push(() => listener.close());
  }
  closers.push(() => registry.close());
  const renewTicket = async () => ({
    ticket: await server.keys.tickets.signTicket({
      workspaceId,
      workspace: 'ada/web',
      userId: ada.id,
      username: 'ada',
      agentKey: certificate.fingerprint,
      clientKey: key.publicKey,
      satellites: satellites.map(({ name }) => name),
      jti: randomUUID(),
      exp,
    }),
    agentKey: certificate.fingerprint,
    satellites,
  });
  const moves = makeQueue<string>();
  const session = await openSession({
    ...(await renewTicket()),
    clientPrivateKey: key.privateKey,
    renewTicket,
    onPath: (what, reason) => moves.put(`${what}: ${reason.code}`),
    clock: fastClock,
  });
  closers.push(() => session.close());
  const stream = await session.open({ kind: 'ssh' });
  let got = '';
  stream.on('error', () => {});
  stream.setEncoding('utf8').on('data', (text) => {
    got += text;
  });
  stream.write('before ');
  await vi.waitFor(() => expect(got).toBe('before '));
  expect(session.path.via).toBe(one.satellite.url);

  await api('POST', '/one/drain', {});
  expect(await moves.next()).toBe('lost: satellite-draining');
  expect(await moves.next()).toBe('resumed: satellite-draining');
  expect(session.path.via).toBe(other.satellite.url);
  stream.write('after');
  await vi.waitFor(() => expect(got).toBe('before after'));
  await becomes('one', 'drained');
  await vi.waitFor(async () => expect((await api('GET', '/other')).body.load.sessions).toBe(1));

  await server.database.db.update(users).set({ status: 'suspended' }).where(eq(users.id, ada.id));
  expect(await session.closed).toMatchObject({ reason: 'access-ended' });
});

test("an agent's listen token works at one satellite only", async () => {
  const [here, there] = [await start(await add('here')), await start(await add('there'))];
  await becomes('here', 'online');
  await becomes('there', 'online');
  const listen = async (satelliteUrl: string, satellite: string) => {
    const token = await server.keys.tickets.signListenToken({
      workspaceId: randomUUID(),
      buildId: randomUUID(),
      satellite,
      exp: Math.floor(Date.now() / 1000) + 60,
    });
    const socket = await openSocket(satelliteUrl, relayPaths.listen, token, {}).catch(({ code }) => code);
    if (typeof socket === 'string') return socket;
    socket.terminate();
    return 'listens';
  };
  const id = (await api('GET', '/here')).body.id;
  expect(await listen(here.satellite.url, id)).toBe('listens');
  expect(await listen(there.satellite.url, id)).toBe('listen-token-invalid');
  expect(await listen(url, id)).toBe('listen-token-invalid');
  expect(await listen(url, 'embedded')).toBe('listens');
  expect(await listen(here.satellite.url, 'embedded')).toBe('listen-token-invalid');
});

test("a client's ticket is valid only at the satellites that it names", async () => {
  const [here, there] = [await start(await add('near')), await start(await add('far'))];
  await becomes('near', 'online');
  await becomes('far', 'online');
  const dial = async (satelliteUrl: string, ...names: string[]) => {
    const ticket = await server.keys.tickets.signTicket({
      workspaceId: randomUUID(),
      userId: randomUUID(),
      agentKey: 'A'.repeat(43),
      clientKey: makeClientKey().publicKey,
      satellites: names,
      jti: randomUUID(),
      exp: Math.floor(Date.now() / 1000) + 60,
    });
    const socket = await openSocket(satelliteUrl, relayPaths.dial, ticket, {}).catch(({ code }) => code);
    if (typeof socket === 'string') return socket;
    socket.terminate();
    return 'dials';
  };
  expect(await dial(here.satellite.url, 'embedded', 'near')).toBe('dials');
  expect(await dial(there.satellite.url, 'embedded', 'near')).toBe('ticket-invalid');
  expect(await dial(here.satellite.url)).toBe('ticket-invalid');
  expect(await dial(here.satellite.url, 'embedded-near')).toBe('ticket-invalid');
  expect(await dial(url, 'near')).toBe('ticket-invalid');
  // Each replica of the server, as one address leads to any of them.
  expect(await dial(url, 'embedded')).toBe('dials');
  expect(await dial(url, 'embedded-10.0.0.2:7080')).toBe('dials');
});

test('unknown tokens and invalid settings are rejected', async () => {
  const { refused } = await start('cde_satellite_unknown');
  await vi.waitFor(() =>
    expect(refused).toHaveBeenCalledWith(expect.objectContaining({ code: 'token-invalid' })),
  );
  const settings = (...flags: string[]) =>
    readSettings(['--server', url, '--token', 'cde_satellite_x', ...flags], {});
  expect(() => readSettings([], {})).toThrow('--server (CDE_SERVER_URL) is missing');
  expect(() => settings()).toThrow('--url (CDE_SATELLITE_URL) is missing');
  expect(() => settings('--listen', '127.0.0.1:1', '--tls-key', 'x')).toThrow('go together');
  expect(() => settings('--listen', 'x')).toThrow('write HOST:PORT');
  expect(settings('--listen', '127.0.0.1:1', '--tls-key', 'x', '--tls-cert', 'y').url).toBe(
    'https://127.0.0.1:1',
  );
});
