/**
 * The time of `ssh hello.cde true` through the tunnel (with `cde ssh --stdio` as ProxyCommand, as config-ssh writes it),
 * with its own session (cold) and over the background process's session (warm). Then the echo of a keystroke in a
 * terminal, over relay, direct-tcp and the background process. Baseline: OpenSSH to sshd on loopback, in the same run.
 * Prints medians and ratios.
 * Usage: node bench/ssh.ts [ROUNDS]. Needs ssh and sshd.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { cde } from '../tests/kit/machine.ts';
import { startSshd } from '../tests/kit/sshd.ts';
import { median, ms, warmServer } from './harness.ts';

const rounds = Number(process.argv[2] ?? 15);
const keysARound = 400;
const { machine, server } = await warmServer();
const sshd = await startSshd(machine.folder);
const plain = [...sshd.options, sshd.host, 'true'];
const config = join(machine.env.HOME!, '.ssh/config');
await mkdir(join(machine.env.HOME!, '.ssh'), { recursive: true, mode: 0o700 });
await machine.cde('config-ssh');
const tunnel = ['-F', config, 'hello.cde', 'true'];

const alone = { CDE_BACKGROUND: 'off' };

async function time(program: string, args: string[], env: Record<string, string> = {}): Promise<number> {
  const began = performance.now();
  const child = spawn(program, args, { env: { ...machine.env, ...env }, stdio: 'ignore' });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} exited with ${code}`);
  return performance.now() - began;
}

/** The times from a keystroke to its echo by the remote terminal, in microseconds. */
async function typeKeys(args: string[], env: Record<string, string>): Promise<number[]> {
  const child = spawn('ssh', ['-tt', ...args], {
    env: { ...machine.env, ...env },
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  let answered: (text: string) => void = () => {};
  child.stdout.setEncoding('utf8').on('data', (text: string) => answered(text));
  const says = (wanted: string) =>
    new Promise<void>((resolve) => {
      answered = (text) => text.includes(wanted) && resolve();
    });
  await says('ready');
  const times: number[] = [];
  for (let i = 0; i < keysARound; i++) {
    const key = 'abcdefgh'[i % 8]!;
    const began = performance.now();
    const echo = says(key);
    child.stdin.write(key);
    await echo;
    times.push((performance.now() - began) * 1e3);
  }
  child.stdin.write('\x03');
  await once(child, 'exit');
  return times;
}

const shell = "sh -c 'echo ready; exec cat >/dev/null'";
const through = (path: string) => [
  ...['-F', config, '-o', `ProxyCommand=${process.execPath} ${cde} ssh --stdio --path=${path} %n`],
  ...['hello.cde', shell],
];

try {
  await time('ssh', plain);
  await time('ssh', tunnel, alone);
  await time('ssh', tunnel);
  const base: number[] = [];
  const cold: number[] = [];
  const warm: number[] = [];
  const node: number[] = [];
  for (let round = 0; round < rounds; round++) {
    base.push(await time('ssh', plain));
    cold.push(await time('ssh', tunnel, alone));
    warm.push(await time('ssh', tunnel));
    node.push(await time(process.execPath, ['-e', '0']));
  }
  console.log(`ssh to sshd on loopback   ${ms(median(base))}`);
  for (const [name, times] of Object.entries({ cold, warm }))
    console.log(
      `ssh hello.cde, ${name}       ${ms(median(times))}, ratio ${(median(times) / median(base)).toFixed(2)}`,
    );
  console.log(`including: node -e 0      ${ms(median(node))}`);
  const ways = {
    sshd: [...plain.slice(0, -1), shell],
    relay: through('relay'),
    direct: through('direct-tcp'),
    shared: through('direct-tcp'),
  };
  const typed: Record<string, number[]> = { sshd: [], relay: [], direct: [], shared: [] };
  for (let round = 0; round < 5; round++)
    for (const [name, args] of Object.entries(ways))
      typed[name]!.push(...(await typeKeys(args, name === 'shared' ? {} : alone)));
  for (const [name, times] of Object.entries(typed)) {
    const sorted = times.sort((a, b) => a - b);
    const at = (q: number) => sorted[Math.floor(sorted.length * q)]!.toFixed(0).padStart(6);
    console.log(`keystroke echo, ${name.padEnd(6)} p50 ${at(0.5)} µs, p99 ${at(0.99)} µs`);
  }
} finally {
  sshd.close();
  await server.stop();
  await machine.remove();
}
