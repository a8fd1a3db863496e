import { execFileSync } from 'node:child_process';
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import ssh2 from 'ssh2';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { hostKeyPath, readHostKey } from './host-key.ts';
import { has } from './ssh/fixture.ts';

let home: string;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'cde-host-key-'));
});
afterEach(() => rm(home, { recursive: true, force: true }));

test('the key is made once, private, and the same ever after', async () => {
  const path = hostKeyPath(home);
  const [one, two] = await Promise.all([readHostKey(path), readHostKey(path)]);
  expect(two).toEqual(one);
  expect(await readHostKey(path)).toEqual(one);
  expect(one!.publicKey).toMatch(/^ssh-ed25519 AAAA\S+$/);
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(await readdir(dirname(path))).toEqual(['ssh_host_ed25519_key']);
});

test.skipIf(!has('ssh-keygen'))('OpenSSH and ssh2 read it (needs ssh-keygen)', async () => {
  const path = hostKeyPath(home);
  const key = await readHostKey(path);
  expect(execFileSync('ssh-keygen', ['-y', '-f', path], { encoding: 'utf8' })).toBe(
    `${key.publicKey} cde workspace\n`,
  );
  const parsed = ssh2.utils.parseKey(key.privateKey);
  if (parsed instanceof Error) throw parsed;
  expect(parsed.verify('data', parsed.sign('data'))).toBe(true);
  // One that a person put there is kept.
  await rm(path);
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'mine', '-f', path]);
  const theirs = execFileSync('ssh-keygen', ['-y', '-f', path], { encoding: 'utf8' });
  expect(theirs.startsWith((await readHostKey(path)).publicKey)).toBe(true);
});

test('a broken file is replaced, and a home that takes no file does no harm', async () => {
  const path = hostKeyPath(home);
  const first = await readHostKey(path);
  for (const broken of [
    '',
    'garbage',
    first.privateKey.slice(0, 200),
    first.privateKey.replace('ACF', 'ACG'),
  ]) {
    await writeFile(path, broken);
    const made = await readHostKey(path);
    expect(made.publicKey).toMatch(/^ssh-ed25519 /);
    expect(await readHostKey(path)).toEqual(made);
  }
  await chmod(home, 0o700);
  await writeFile(join(home, 'file'), '');
  expect((await readHostKey(join(home, 'file/key'))).publicKey).toMatch(/^ssh-ed25519 /);
});
