import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { startNetcheck } from '@cde/api/satellites.ts';
import { expect, onTestFinished, test } from 'vitest';
import { startFakeServer } from '../testing/cli.ts';

const { home, server, env } = await startFakeServer();

test('a captive portal in place of the server: says so, keeps what was measured, ends with 6', async () => {
  const portal = createServer((_request, response) =>
    response.writeHead(302, { location: 'http://login.hotel.example/' }).end('<html>'),
  ).listen(0, '127.0.0.1');
  await once(portal, 'listening');
  onTestFinished(() => void portal.close());
  const behind = { ...env, CDE_URL: `http://127.0.0.1:${(portal.address() as AddressInfo).port}` };
  const ran = await home.run(['netcheck'], { env: behind });
  expect(ran.code).toBe(6);
  expect(ran.stdout).toMatch(/^There is no list of satellites: .* \[not-a-cde-server\]$/m);
  expect(ran.stdout).toMatch(
    /^portal\ta captive portal: sign in to this network at http:\/\/login\.hotel\.example\/$/m,
  );
  const json = await home.run(['netcheck', '--json'], { env: behind });
  expect(json.code).toBe(6);
  expect(JSON.parse(json.stdout)).toMatchObject({
    captivePortal: { location: 'http://login.hotel.example/' },
    failure: { code: 'not-a-cde-server' },
    satellites: [],
  });
});

test('--watch measures again and again until Ctrl-C, an object per line with --json', async () => {
  server.on(startNetcheck, () => ({
    token: 'probe',
    expiresAt: new Date(Date.now() + 60_000).toISOString(),
    satellites: [{ name: 'gone', region: '', url: 'http://127.0.0.1:1' }],
  }));
  const running = home.start(['netcheck', '--watch', '--json'], { env });
  await running.says('"event":"measured"');
  running.child.kill('SIGINT');
  const { code, stdout, stderr } = await running.ended;
  // No satellite answers.
  expect({ code, stderr }).toEqual({ code: 6, stderr: '' });
  const [first] = stdout
    .trim()
    .split('\n')
    .map((text) => JSON.parse(text));
  expect(first).toMatchObject({ event: 'measured', satellites: [{ name: 'gone', https: { rttMs: null } }] });
});
