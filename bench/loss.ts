/**
 * Throughput of `ssh hello.cde` over a link of 20 ms each way that loses packets, over relay, direct-tcp and direct-udp.
 * Baseline: OpenSSH to sshd over the same link, in the same run. Prints medians and ratios.
 * Usage: node bench/loss.ts [ROUNDS]. Needs Linux, root, ssh, sshd, ip, iptables and python3.
 */
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { makeAddress, makeHost } from '../tests/faults/network/network.ts';
import { freePort } from '../tests/kit/free-port.ts';
import { cde, makeMachine } from '../tests/kit/machine.ts';
import { startSshd } from '../tests/kit/sshd.ts';
import { median } from './harness.ts';

const rounds = Number(process.argv[2] ?? 3);
const warmMs = 3_000;
const secondsEach = 12;
const place = makeAddress();
const host = await makeHost();
const machine = await makeMachine({
  CDE_LISTEN: `${place.address}:${await freePort()}`,
  CDE_LOCAL_PROVIDER: 'on',
});
await mkdir(join(machine.env.HOME!, '.ssh'), { recursive: true, mode: 0o700 });
await machine.start();
const config = join(machine.env.HOME!, '.ssh/config');
await machine.cde('config-ssh', '--ssh-config', config);
const sshd = await startSshd(machine.folder, place.address);
const through = (path: string) => [
  ...['-F', config, '-o', `ProxyCommand=${process.execPath} ${cde} ssh --stdio --path=${path} %n`],
  'hello.cde',
];
const ways: Record<string, string[]> = {
  sshd: [...sshd.options, sshd.host],
  relay: through('relay'),
  'direct-tcp': through('direct-tcp'),
  'direct-udp': through('direct-udp'),
};

/** The Mbit/s of a download once it has reached its full rate. */
async function rate(words: string[]): Promise<number> {
  const [program, ...args] = [...host.prefix, 'ssh', ...words, 'cat /dev/zero'];
  const child = spawn(program!, args, {
    env: { ...machine.env, CDE_BACKGROUND: 'off' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let bytes = 0;
  await new Promise<void>((resolve) =>
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      resolve();
    }),
  );
  await delay(warmMs);
  const [from, began] = [bytes, performance.now()];
  await delay(secondsEach * 1_000);
  const megabits = ((bytes - from) * 8) / 1e3 / (performance.now() - began);
  child.kill();
  return megabits;
}

try {
  console.log(`a download over 20 ms each way, ${rounds} rounds of ${secondsEach} s, medians in Mbit/s`);
  for (const loss of [0, 0.001, 0.01]) {
    await host.set({ delayMs: 20, loss });
    const got = Object.fromEntries(Object.keys(ways).map((name) => [name, [] as number[]]));
    for (let round = 0; round < rounds; round++)
      for (const [name, words] of Object.entries(ways)) got[name]!.push(await rate(words));
    const base = median(got.sshd!);
    const cells = Object.entries(got).map(
      ([name, each]) => `${name} ${median(each).toFixed(1)} (${(median(each) / base).toFixed(2)})`,
    );
    console.log(`${(loss * 100).toFixed(1)} % lost: ${cells.join('   ')}`);
  }
} finally {
  sshd.close();
  await host.remove();
  await machine.remove();
  place.remove();
}
