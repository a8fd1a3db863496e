import { chmod, link, mkdir, readFile, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import ssh2 from 'ssh2';

export interface HostKey {
  /** In OpenSSH's form, for the SSH server. */
  privateKey: string;
  /** One line, for `known_hosts`: `ssh-ed25519 AAAA…`. */
  publicKey: string;
}

/** Where the key lies: in the home, so that it is the same after a restart and on another image. */
export function hostKeyPath(home: string): string {
  return join(home, '.local/state/cde/ssh_host_ed25519_key');
}

/**
 * Reads the workspace's host key, making it first where there is none or it cannot be read. A file
 * system that takes no file (full, read-only) does not keep the agent from starting: the key then lasts
 * as long as the process.
 */
export async function readHostKey(path: string): Promise<HostKey> {
  const existing = await readFile(path, 'utf8').catch(() => undefined);
  const kept = existing === undefined ? undefined : parse(existing);
  if (kept) return kept;
  const made = parse(ssh2.utils.generateKeyPairSync('ed25519', { comment: 'cde workspace' }).private)!;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    // Linked into place whole: of two agents that start at once, both take the first one's key.
    const draft = `${path}.${process.pid}`;
    await writeFile(draft, made.privateKey, { mode: 0o600 });
    await chmod(draft, 0o600);
    if (existing !== undefined) await unlink(path).catch(() => {});
    try {
      await link(draft, path);
    } catch {
      return parse(await readFile(path, 'utf8')) ?? made;
    } finally {
      await unlink(draft);
    }
  } catch {
    // No place to keep it.
  }
  return made;
}

function parse(privateKey: string): HostKey | undefined {
  const key = ssh2.utils.parseKey(privateKey);
  if (key instanceof Error || key.type !== 'ssh-ed25519' || !key.isPrivateKey()) return undefined;
  return { privateKey, publicKey: `ssh-ed25519 ${key.getPublicSSH().toString('base64')}` };
}
