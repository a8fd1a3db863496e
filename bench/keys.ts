/**
 * The echo of a keystroke during a download that saturates a link of 20 Mbit/s and 20 ms each way: two `ssh` processes
 * that share one session, over relay and direct-tcp. Baseline: OpenSSH to sshd over the same link, with separate
 * connections and with a shared one (ControlMaster). Prints p50, p99 and the download rate.
 * Usage: node bench/keys.ts [SECONDS]. Needs Linux, root, ssh, sshd, ip and python3.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { makeAddress, makeHost } from '../tests/faults/network/network.ts';
import { freePort } from '../tests/kit/free-port.ts';
import { cde, makeMachine } from '../tests/kit/machine.ts';
import { startSshd } from '../tests/kit/sshd.ts';

const seconds = Number(process.argv[2] ?? 8);
const wire = { megabits: 20, delayMs: 20 };
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
const shared = ['-o', 'ControlMaster=auto', '-o', `ControlPath=${machine.folder}/mux`];
const through = (path: string) => [
  ...['-F', config, '-o', `ProxyCommand=${process.execPath} ${cde} ssh --stdio --path=${path} %n`],
];
const ways: Record<string, string[]> = {
  'sshd, two connections': [...sshd.options, sshd.host],
  'sshd, one connection': [...sshd.options, ...shared, sshd.host],
  'cde, relay': [...through('relay'), 'hello.cde'],
  'cde, direct-tcp': [...through('direct-tcp'), 'hello.cde'],
};

const begin = (words: string[]): ChildProcess => {
  const [program, ...args] = [...host.prefix, 'ssh', ...words];
  return spawn(program!, args, { env: machine.env, stdio: ['pipe', 'pipe', 'inherit'] });
};
/** The times from a keystroke to its echo, in ms. */
async function type(child: ChildProcess, until: () => boolean): Promise<number[]> {
  const times: number[] = [];
  let answered: (text: string) => void = () => {};
  const listener = (chunk: Buffer) => answered(String(chunk));
  child.stdout!.on('data', listener);
  for (let i = 0; !until(); i++) {
    const key = 'abcdefgh'[i % 8]!;
    const began = performance.now();
    const echo = new Promise<void>((resolve) => {
      answered = (text) => text.includes(key) && resolve();
    });
    child.stdin!.write(key);
    await echo;
    times.push(performance.now() - began);
    await delay(50);
  }
  child.stdout!.off('data', listener);
  return times.sort((one, other) => one - other);
}
const at = (times: number[], q: number) => times[Math.floor(times.length * q)]!.toFixed(0).padStart(5);

try {
  await host.set(wire);
  console.log(`${wire.megabits} Mbit/s, ${wire.delayMs} ms each way; echo of a keystroke in ms`);
  for (const [name, words] of Object.entries(ways)) {
    const terminal = begin(['-tt', ...words, "sh -c 'echo ready; exec cat >/dev/null'"]);
    await new Promise<void>((resolve) =>
      terminal.stdout!.on('data', (chunk) => String(chunk).includes('ready') && resolve()),
    );
    let over = performance.now() + 3_000;
    const calm = await type(terminal, () => performance.now() > over);
    const bulk = begin([...words, 'cat /dev/urandom']);
    let bytes = 0;
    bulk.stdout!.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    // Start once the download has reached its full rate.
    await delay(3_000);
    const [from, began] = [bytes, performance.now()];
    over = began + seconds * 1000;
    const busy = await type(terminal, () => performance.now() > over);
    const rate = ((bytes - from) * 8) / 1e3 / (performance.now() - began);
    console.log(
      `${name.padEnd(22)} idle p50 ${at(calm, 0.5)} p99 ${at(calm, 0.99)}   during a download p50 ${at(busy, 0.5)} p99 ${at(busy, 0.99)}   ${rate.toFixed(1)} Mbit/s`,
    );
    bulk.kill();
    terminal.kill();
    await delay(1_000);
  }
} finally {
  sshd.close();
  await host.remove();
  await machine.remove();
  place.remove();
}
