import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestServer, type TestServer } from '../testing.ts';
import { checkSatelliteAddress } from './addresses.ts';

const anywhere = 'https://203.0.113.7:8443';

test.each([
  'http://169.254.169.254/',
  'http://2852039166/',
  'http://0xa9fea9fe/',
  'http://0251.0376.0251.0376/',
  'http://169.16689662/',
  'http://[::ffff:169.254.169.254]/',
  'http://[64:ff9b::a9fe:a9fe]/',
  'http://[fd00:ec2::254]/',
  'http://[fe80::1]/',
  'http://0.0.0.0:8080/',
  'http://0/',
  'http://127.0.0.1:2379/',
  'http://2130706433/',
  'http://127.1/',
  'http://[::1]:2379/',
  'http://[::ffff:127.0.0.1]/',
  'http://localhost:2379/',
  'http://224.0.0.1/',
])('a satellite cannot be at %s', async (url) => {
  await expect(checkSatelliteAddress({ url, stun: null }, anywhere)).rejects.toMatchObject({
    code: 'bad-request',
  });
  const { hostname } = new URL(url);
  const stun = `${hostname}:3478`;
  await expect(checkSatelliteAddress({ url: 'https://east.invalid', stun }, anywhere)).rejects.toMatchObject({
    code: 'bad-request',
  });
});

test.each([
  ['https://cde.invalid', 'https://cde.invalid'],
  ['https://CDE.invalid:443/x', 'https://cde.invalid'],
  ['https://203.0.113.7:8443/', anywhere],
  ['http://localhost:7080', 'http://127.0.0.1:7080'],
  ['http://127.0.0.2:7080', 'http://localhost:7080'],
  ['http://[::1]:7080', 'http://127.0.0.1:7080'],
])('nor at the dashboard: %s for %s', async (url, accessUrl) => {
  await expect(checkSatelliteAddress({ url, stun: null }, accessUrl)).rejects.toMatchObject({
    message: expect.stringContaining('dashboard'),
  });
});

test.each([
  ['https://east.invalid', 'https://cde.invalid'],
  ['https://203.0.113.7:9443', anywhere],
  ['http://10.1.2.3:7090', anywhere],
  // Everything on one machine.
  ['http://127.0.0.1:7090', 'http://127.0.0.1:7080'],
])('it can be at %s beside %s', async (url, accessUrl) => {
  await checkSatelliteAddress({ url, stun: `${new URL(url).hostname}:3478` }, accessUrl);
});

let server: TestServer;
beforeAll(async () => {
  server = await makeTestServer({ CDE_ACCESS_URL: anywhere });
});
afterAll(() => server.close());

test('a rejected registration explains why and stores nothing', async () => {
  const owner = await server.addUser('root', 'owner');
  const { body: made } = await server.request(owner, 'POST', '/api/v1/satellites', { name: 'east' });
  const reply = await server.request(
    null,
    'POST',
    '/api/v1/satellite/register',
    { url: 'http://2852039166/latest', version: '1', hostname: 'east' },
    { authorization: `Bearer ${made.token}` },
  );
  expect(reply).toMatchObject({
    status: 400,
    body: {
      code: 'bad-request',
      detail: expect.stringContaining('169.254.169.254'),
      hint: expect.any(String),
    },
  });
  expect((await server.request(owner, 'GET', '/api/v1/satellites/east')).body.url).toBeNull();
});
