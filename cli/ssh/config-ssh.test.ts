import { execFileSync, spawnSync } from 'node:child_process';
import { chmod, lstat, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { listWorkspaces } from '@cde/api/workspaces.ts';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { type FakeServer, makeFakeServer, makeTestHome, type TestHome } from '../testing/cli.ts';
import { workspace } from '../testing/objects.ts';

/** Without it the file is written all the same; these tests read it by ssh's own eyes. */
const hasSsh = spawnSync('ssh', ['-V']).status === 0;

let home: TestHome;
let server: FakeServer;
let config: string;
let env: Record<string, string>;
const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJhZ';
const agent = { connected: true, version: '1', lastSeenAt: null, sshHostKey: `${key} comment` };

beforeAll(async () => {
  server = await makeFakeServer();
  server.on(listWorkspaces, ({ query }) => ({
    items: [
      workspace({ agent }),
      ...(query.owner === 'me'
        ? []
        : [workspace({ id: '01990000-0000-7000-8000-0000000000ff', owner: 'bob', name: 'api', agent })]),
    ],
    next: null,
  }));
});
afterAll(async () => {
  expect(server.faults).toEqual([]);
  await server.close();
});
beforeEach(async () => {
  home = await makeTestHome();
  config = join(home.path, '.ssh', 'config');
  env = { CDE_URL: server.url, CDE_TOKEN: 'cde_x' };
  return () => home.remove();
});

/** What the real ssh makes of the file. */
function sshReads(host: string, file = config): Map<string, string> {
  const text = execFileSync('ssh', ['-G', '-F', file, host], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return new Map(
    text
      .trim()
      .split('\n')
      .map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]),
  );
}

test.runIf(hasSsh)(
  'from nothing: ssh reads the proxy command and the pinned keys, and only for *.cde',
  async () => {
    expect(await home.run(['config-ssh'], { env })).toMatchObject({ code: 0 });
    const read = sshReads('web.cde');
    expect(read.get('proxycommand')).toMatch(/^env CDE_URL=\S+ \/\S+ \/\S+\/cde\.mjs ssh --stdio '%n'$/);
    expect(read.get('stricthostkeychecking')).toBe('true');
    const known = read.get('userknownhostsfile')!;
    expect((await readFile(known, 'utf8')).trim().split('\n').sort()).toEqual([
      `ada--web.cde ${key}`,
      `bob--api.cde ${key}`,
      `web.cde ${key}`,
    ]);
    expect(sshReads('example.com').has('proxycommand')).toBe(false);
    expect((await stat(config)).mode & 0o777).toBe(0o600);
    expect((await stat(join(home.path, '.ssh'))).mode & 0o777).toBe(0o700);
    // Nothing half-written is left behind.
    expect(await readdir(join(home.path, '.ssh'))).toEqual(['cde', 'config']);
  },
);

test.runIf(hasSsh)(
  'the person’s own settings stay as they are, rights and line ends too, and apply to the hosts',
  async () => {
    const own = Buffer.from(
      'Host *.cde\r\n  User gr\xfc\xdfe\r\n  ForwardAgent yes\r\nHost *\r\n  User ada',
      'latin1',
    );
    await mkdir(join(home.path, '.ssh'), { mode: 0o700 });
    await writeFile(config, own);
    await chmod(config, 0o640);
    await home.run(['config-ssh'], { env });
    const after = await readFile(config);
    expect(after.subarray(-own.length).equals(own)).toBe(true);
    expect((await stat(config)).mode & 0o777).toBe(0o640);
    expect(sshReads('web.cde').get('forwardagent')).toBe('yes');
    expect(sshReads('example.com').get('user')).toBe('ada');
    // Again: nothing to do, and the file is not even written.
    const { mtimeMs } = await stat(config);
    expect(await home.json(['config-ssh'], { env })).toMatchObject({ changed: [] });
    expect((await stat(config)).mtimeMs).toBe(mtimeMs);
    expect(await home.run(['config-ssh', '--remove'])).toMatchObject({ code: 0 });
    expect((await readFile(config)).equals(own)).toBe(true);
    expect(await readdir(join(home.path, '.ssh'))).toEqual(['config']);
  },
);

test.runIf(hasSsh)('a symbolic link is followed, also to a file that is not there yet', async () => {
  const dotfiles = join(home.path, 'dotfiles');
  await mkdir(dotfiles);
  await mkdir(join(home.path, '.ssh'));
  await symlink('../dotfiles/ssh-config', config);
  await home.run(['config-ssh'], { env });
  expect((await lstat(config)).isSymbolicLink()).toBe(true);
  expect(await readFile(join(dotfiles, 'ssh-config'), 'utf8')).toContain('Include ');
  expect(sshReads('web.cde').get('proxycommand')).toContain('ssh --stdio');
  await rm(config);
  await symlink('config', config);
  expect(await home.run(['config-ssh'], { env })).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('leads to itself'),
  });
});

test.runIf(hasSsh)('paths with spaces, quotes and percent signs reach ssh as they are', async () => {
  const odd = join(home.path, 'it’s odd');
  await mkdir(odd);
  const file = join(odd, 'config');
  const ran = await home.run(['config-ssh', '--ssh-config', file], {
    env: { ...env, CDE_CONFIG_DIR: join(home.path, '100% mine') },
  });
  expect(ran).toMatchObject({ code: 0 });
  const read = sshReads('web.cde', file);
  expect(read.get('proxycommand')).toContain(`'CDE_CONFIG_DIR=${home.path}/100%% mine'`);
  expect(read.get('userknownhostsfile')).toContain('mine/known_hosts');
});

test('--dry-run says what would change and changes nothing', async () => {
  const ran = await home.run(['config-ssh', '--dry-run'], { env });
  expect(ran).toMatchObject({ code: 0 });
  expect(ran.stdout).toContain('Host *.cde');
  expect(await readdir(home.path)).not.toContain('.ssh');
});

test.runIf(hasSsh)('host names have no case', async () => {
  await home.run(['config-ssh'], { env });
  for (const host of ['WEB.cde', 'Web.CDE', 'web.Cde']) {
    const read = sshReads(host);
    expect([read.get('proxycommand'), read.get('hostname')]).toEqual([
      expect.stringContaining('ssh --stdio'),
      'web.cde',
    ]);
  }
});

test.runIf(hasSsh)('without a server it is written all the same', async () => {
  const ran = await home.run(['config-ssh']);
  expect(ran).toMatchObject({ code: 0, stderr: expect.stringContaining('could not be fetched') });
  expect(sshReads('web.cde').get('proxycommand')).toContain('ssh --stdio');
});

test('many at once lose no pins and leave a whole file', async () => {
  await Promise.all(Array.from({ length: 6 }, () => home.run(['config-ssh'], { env })));
  const content = await readFile(config, 'utf8');
  expect(content.match(/^Include /gm)).toHaveLength(1);
  const known = await readFile(join(home.path, '.config', 'cde', 'known_hosts'), 'utf8');
  expect(known.trim().split('\n')).toHaveLength(3);
});
