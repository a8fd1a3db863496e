/**
 * `ssh hello.cde true` through the tunnel (cde ssh --stdio as ProxyCommand, as config-ssh writes it), beside
 * OpenSSH's client to OpenSSH's sshd on loopback, in the same run. Prints medians and the ratio.
 * Usage: node bench/ssh.ts [ROUNDS]. Needs ssh and sshd.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../tests/harness/server.ts';
import { median, ms, warmServer } from './harness.ts';

const rounds = Number(process.argv[2] ?? 15);
const sshd = ['/usr/sbin/sshd', '/usr/local/sbin/sshd'].find((path) => existsSync(path));
if (!sshd) {
  console.error('bench/ssh.ts needs sshd: apt-get install openssh-server');
  process.exit(1);
}
const { machine, server } = await warmServer();
const keys = join(machine.folder, 'sshd');
await mkdir(keys, { mode: 0o700 });
for (const name of ['host', 'user'])
  await machine.run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(keys, name)]);
await copyFile(join(keys, 'user.pub'), join(keys, 'authorized'));
const port = await freePort();
await writeFile(
  join(keys, 'config'),
  `Port ${port}\nListenAddress 127.0.0.1\nHostKey ${keys}/host\nAuthorizedKeysFile ${keys}/authorized\nPidFile none\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n`,
);
await mkdir('/run/sshd', { recursive: true }).catch(() => {});
const daemon = spawn(sshd, ['-D', '-e', '-f', join(keys, 'config')], { stdio: 'ignore' });
const plain = [
  '-F',
  'none',
  '-p',
  String(port),
  '-i',
  join(keys, 'user'),
  '-o',
  'StrictHostKeyChecking=no',
  '-o',
  `UserKnownHostsFile=${keys}/known`,
  '-o',
  'LogLevel=ERROR',
  `${userInfo().username}@127.0.0.1`,
  'true',
];
const config = join(machine.env.HOME!, '.ssh/config');
await mkdir(join(machine.env.HOME!, '.ssh'), { recursive: true, mode: 0o700 });
await machine.cde('config-ssh');
const tunnel = ['-F', config, 'hello.cde', 'true'];

async function time(program: string, args: string[]): Promise<number> {
  const began = performance.now();
  const child = spawn(program, args, { env: machine.env, stdio: 'ignore' });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}`);
  return performance.now() - began;
}

try {
  for (let tries = 0; ; tries++) {
    try {
      await time('ssh', plain);
      break;
    } catch (error) {
      if (tries > 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  await time('ssh', tunnel);
  const base: number[] = [];
  const ours: number[] = [];
  const node: number[] = [];
  for (let round = 0; round < rounds; round++) {
    base.push(await time('ssh', plain));
    ours.push(await time('ssh', tunnel));
    node.push(await time(process.execPath, ['-e', '0']));
  }
  console.log(`ssh to sshd on loopback   ${ms(median(base))}`);
  console.log(`ssh hello.cde             ${ms(median(ours))}`);
  console.log(`of it: node -e 0          ${ms(median(node))}`);
  console.log(
    `our part ${ms(median(ours) - median(base)).trim()}, ratio ${(median(ours) / median(base)).toFixed(2)}`,
  );
} finally {
  daemon.kill();
  await server.stop();
  await machine.remove();
}
