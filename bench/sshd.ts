import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../tests/kit/free-port.ts';
import type { Machine } from '../tests/kit/machine.ts';

/** OpenSSH's server, as a baseline. */
export interface Sshd {
  /** The options for `ssh`, to be followed by the host and the command. */
  options: string[];
  host: string;
  close(): void;
}

const program = ['/usr/sbin/sshd', '/usr/local/sbin/sshd'].find((path) => existsSync(path));

/** Starts sshd with its own keys in the machine's folder, and waits until it answers. */
export async function startSshd(machine: Machine, address = '127.0.0.1'): Promise<Sshd> {
  if (!program) {
    console.error('this benchmark needs sshd: apt-get install openssh-server');
    process.exit(1);
  }
  const keys = join(machine.folder, 'sshd');
  await mkdir(keys, { mode: 0o700 });
  for (const name of ['host', 'user'])
    await machine.run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(keys, name)]);
  await copyFile(join(keys, 'user.pub'), join(keys, 'authorized'));
  const port = await freePort();
  const settings = {
    Port: port,
    ListenAddress: address,
    HostKey: `${keys}/host`,
    AuthorizedKeysFile: `${keys}/authorized`,
    PidFile: 'none',
    StrictModes: 'no',
    PermitRootLogin: 'yes',
    UsePAM: 'no',
    UseDNS: 'no',
  };
  await writeFile(
    join(keys, 'config'),
    Object.entries(settings)
      .map(([name, value]) => `${name} ${value}\n`)
      .join(''),
  );
  await mkdir('/run/sshd', { recursive: true }).catch(() => {});
  const daemon = spawn(program, ['-D', '-e', '-f', join(keys, 'config')], { stdio: 'ignore' });
  for (let tries = 0; ; tries++) {
    const socket = connect(port, address);
    try {
      await once(socket, 'connect');
      break;
    } catch (error) {
      if (tries > 100) throw error;
      await delay(50);
    } finally {
      socket.destroy();
    }
  }
  return {
    options: [
      ...['-F', 'none', '-p', String(port), '-i', join(keys, 'user'), '-o', 'StrictHostKeyChecking=no'],
      ...['-o', `UserKnownHostsFile=${keys}/known`, '-o', 'LogLevel=ERROR'],
    ],
    host: `${userInfo().username}@${address}`,
    close: () => daemon.kill(),
  };
}
