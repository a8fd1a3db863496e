import { describe, expect, test } from 'vitest';
import { until } from '../kit/until.ts';
import { aCommand, asleep, aTransfer, cut, lacking, useServer, withLaptop } from './network/laptop.ts';

/**
 * Network faults under real programs: laptops with OpenSSH, rsync and `cde`, each in a network namespace with a simulated
 * link to the server, its satellite and the agent. Faults of ten minutes are in tests/long.
 */
useServer();

describe.skipIf(lacking).concurrent('a session survives', () => {
  test('no fault, for comparison: rsync of 200 MB', () => aTransfer(async () => {}));

  test('a new address: a running command', () => aCommand(20, async ({ host }) => host.changeAddress()));
  test.each([
    'relay',
    'direct-tcp',
  ])('a new address, over %s: it is detected as such, not by a timeout', (path) =>
    withLaptop(async ({ begin, host }) => {
      const running = begin(
        'cde',
        'ssh',
        'hello',
        '-v',
        `--path=${path}`,
        '--',
        'echo there; sleep 5; echo on',
      );
      await until(async () => running.stdout().includes('there') || running.child.exitCode !== null, Boolean);
      host.changeAddress();
      const { code, stdout, stderr } = await running.ended;
      expect({ code, stdout }).toEqual({ code: 0, stdout: 'there\non\n' });
      expect(stderr).toContain('this machine changed its network');
    }));
  test('a new address: rsync of 200 MB', () => aTransfer(async ({ host }) => host.changeAddress()));

  test.each([5, 60])('silence of %i s: a running command', (seconds) => aCommand(seconds / 2, cut(seconds)));
  test.each([5, 60])('silence of %i s: rsync of 200 MB', (seconds) => aTransfer(cut(seconds)));

  test.each([1, 5])('%i % packet loss: rsync of 200 MB', (percent) =>
    aTransfer(async ({ host }) => host.set({ loss: percent / 100 })));
  test.each([1, 5])('%i % packet loss: a running command', (percent) =>
    aCommand(10, async ({ host }) => host.set({ loss: percent / 100 })));

  test('a delay of 200 ms each way', () =>
    withLaptop(async (laptop) => {
      await laptop.host.set({ delayMs: 200 });
      expect(await laptop.ssh('echo there').ended).toMatchObject({ code: 0, stdout: 'there\n' });
    }));

  test('no UDP', () =>
    aCommand(10, async ({ host }) => {
      for (const chain of ['INPUT', 'OUTPUT']) host.iptables('-A', chain, '-p', 'udp', '-j', 'DROP');
    }));

  test('sleep of the laptop', () => aCommand(20, asleep(40)));
});
