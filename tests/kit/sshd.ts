import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from './free-port.ts';
import { until } from './until.ts';

const run = promisify(execFile);

async function canConnect(port: number, address: string): Promise<boolean> {
  const socket = connect(port, address);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** OpenSSH's server for the user of this process, with keys of its own. */
export interface Sshd {
  /** The options for `ssh`, to be followed by the host and the command. They accept any host key. */
  options: string[];
  host: string;
  port: number;
  /** The private key that it accepts. */
  key: string;
  /** A line of known_hosts. */
  hostKey: string;
  close(): void;
}

const program = ['/usr/sbin/sshd', '/usr/local/sbin/sshd'].find((path) => existsSync(path));

/** Starts sshd with its keys below the folder, and waits until it answers. `more`: further settings. */
export async function startSshd(
  folder: string,
  address = '127.0.0.1',
  more: Record<string, string> = {},
): Promise<Sshd> {
  if (!program) throw new Error('There is no sshd: apt-get install openssh-server');
  const keys = join(folder, 'sshd');
  await mkdir(keys, { mode: 0o700, recursive: true });
  for (const name of ['host', 'user'])
    await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(keys, name)]);
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
    ...more,
  };
  await writeFile(
    join(keys, 'config'),
    Object.entries(settings)
      .map(([name, value]) => `${name} ${value}\n`)
      .join(''),
  );
  await mkdir('/run/sshd', { recursive: true }).catch(() => {});
  const daemon = spawn(program, ['-D', '-e', '-f', join(keys, 'config')], { stdio: 'ignore' });
  await until(() => canConnect(port, address), 'sshd');
  return {
    options: [
      ...['-F', 'none', '-p', String(port), '-i', join(keys, 'user'), '-o', 'StrictHostKeyChecking=no'],
      ...['-o', `UserKnownHostsFile=${keys}/known`, '-o', 'LogLevel=ERROR'],
    ],
    host: `${userInfo().username}@${address}`,
    port,
    key: join(keys, 'user'),
    hostKey: `[${address}]:${port} ${(await readFile(join(keys, 'host.pub'), 'utf8')).trim()}\n`,
    close: () => daemon.kill(),
  };
}
