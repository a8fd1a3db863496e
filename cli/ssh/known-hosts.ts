import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { configDir } from '../config/config.ts';
import { withLock, writeAtomically } from '../config/files.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';

/** Our own known_hosts: the host keys that the server vouches for. ssh reads it and never writes it. */
export function knownHostsFile(env: NodeJS.ProcessEnv): string {
  return join(configDir(env), 'known_hosts');
}

/**
 * Pins host keys: `pins` is host to public key line (`ssh-ed25519 AAAA…`). What stood for these hosts is
 * replaced, other lines stay. Most calls find their pins as they are, and write nothing.
 */
export async function pinHostKeys(env: NodeJS.ProcessEnv, pins: ReadonlyMap<string, string>): Promise<void> {
  const file = knownHostsFile(env);
  const wanted = [...pins].map(([host, key]) => lineOf(host, key));
  const present = new Set(read(file));
  if (wanted.every((line) => present.has(line))) return;
  await withLock(file, () => {
    const others = read(file).filter((line) => !pins.has(line.split(' ', 1)[0]!));
    writeAtomically(file, `${[...others, ...wanted].join('\n')}\n`, 0o600);
  });
}

/** One line for one host: a server's words must not become a pattern, or a line for the hosts of another server. */
function lineOf(host: string, key: string): string {
  const words = key.trim().split(/\s+/).slice(0, 2).join(' ');
  if (!/^[A-Za-z0-9][A-Za-z0-9.-]*$/.test(host) || !/^ssh-ed25519 [A-Za-z0-9+/]+=*$/.test(words))
    throw new Failure('not-a-cde-server', `The server gives a host key in a form that is not cde's.`, {
      exitCode: exitCodes.unreachable,
      detail: JSON.stringify(`${host} ${key}`.slice(0, 200)),
      hint: 'Nothing was written. Check the address of the server.',
    });
  return `${host} ${words}`;
}

function read(file: string): string[] {
  try {
    return readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
