import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cloneDatabase } from './kit/database.ts';
import { freePort } from './kit/free-port.ts';
import { type Machine, makeMachine } from './kit/machine.ts';

/** `cde netcheck` by the real programs: the server's own satellite, one beside it, and one whose UDP goes nowhere. */
let machine: Machine;
beforeAll(async () => {
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  const server = await machine.start();
  const silent = createSocket('udp4').bind(0, '127.0.0.1');
  await once(silent, 'listening');
  silent.unref();
  for (const [name, more] of [
    ['east', []],
    ['west', ['--udp-address', `127.0.0.1:${silent.address().port}`]],
  ] as const) {
    const { stdout } = await machine.cde('satellite', 'add', name, '--region', `the ${name}`);
    const satellite = machine.begin(
      ['satellite', 'start', '--server', server.url, '--listen', `127.0.0.1:${await freePort()}`, ...more],
      { CDE_SATELLITE_TOKEN: stdout.trim(), CDE_LOG_LEVEL: 'info' },
    );
    await satellite.says('satellite is registered');
  }
});
afterAll(() => machine?.remove());

test('measures each satellite, and says which of them UDP does not reach', async () => {
  const ran = await machine.cde('netcheck', '--json', '--throughput');
  expect(ran.code, ran.stderr).toBe(0);
  const report = JSON.parse(ran.stdout);
  expect(report).toMatchObject({ udp: true, nat: 'none', ipv4: true, proxy: null });
  expect(report.satellites).toMatchObject(
    ['embedded', 'east', 'west'].map((name) => ({
      name,
      https: { error: null, rttMs: expect.any(Number) },
      throughput: {
        error: null,
        downBitsPerSecond: expect.any(Number),
        upBitsPerSecond: expect.any(Number),
      },
      udp:
        name === 'west'
          ? { answered: false, train: null, error: expect.stringContaining('UDP is blocked') }
          : { answered: true, error: null, train: { sent: 20, received: expect.any(Number) } },
    })),
  );
});

test('to people: a table, reasons, and a verdict; of one satellite; of none', async () => {
  const ran = await machine.cde('netcheck', 'west');
  expect(ran.code).toBe(0);
  expect(ran.stdout).toMatch(/^SATELLITE\tREGION\tHTTPS\tUDP\tLOSS\tJITTER\tSEEN AS$/m);
  expect(ran.stdout).toMatch(/^west\tthe west\t[\d.]+\t\t\t\t$/m);
  expect(ran.stdout).toMatch(/^west: UDP: no answer by UDP from 127\.0\.0\.1:\d+ within 2 s/m);
  expect(ran.stdout).toMatch(/no answer from any satellite/);
  expect(await machine.cde('netcheck', 'north')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('[satellite-not-found]'),
  });
});
