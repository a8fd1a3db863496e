import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import {
  access,
  chmod,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  statfs,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import ssh2 from 'ssh2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Fixture, has, makeFixture, until } from '../ssh/fixture.ts';

const md5 = (data: Buffer) => createHash('md5').update(data).digest('hex');

describe('files over OpenSSH', () => {
  let fixture: Fixture;
  beforeAll(async () => {
    fixture = await makeFixture();
  });
  afterAll(() => fixture.close());

  const inHome = (name: string) => join(fixture.home, name);
  const local = (name: string) => join(fixture.folder, name);

  /** Runs sftp's commands one after another; a line that begins with `-` may fail. */
  async function sftp(...commands: string[]) {
    const result = await fixture.run('sftp', ['-F', fixture.config, '-b', '-', 'ws'], {
      input: `${commands.join('\n')}\n`,
    });
    return { code: result.code, text: result.stdout.toString() + result.stderr };
  }

  describe.skipIf(!has('sftp'))('sftp (needs sftp)', () => {
    test('puts and gets a large file byte for byte', async () => {
      const data = randomBytes(50_000_000);
      await writeFile(local('large'), data);
      const result = await sftp('put large there', 'get there back');
      expect(result).toMatchObject({ code: 0 });
      expect(md5(await readFile(inHome('there')))).toBe(md5(data));
      expect(md5(await readFile(local('back')))).toBe(md5(data));
    });

    test('starts in the home, lists, makes, renames, links and removes', async () => {
      await writeFile(local('small'), 'hello\n');
      const result = await sftp(
        'pwd',
        'put small a',
        'mkdir folder',
        'rename a folder/b',
        'ln -s folder/b symbolic',
        'ln folder/b hard',
        'chmod 640 hard',
        'ls -la',
        'ls -1 folder',
        'df',
      );
      expect(result.code).toBe(0);
      expect(result.text).toContain(`Remote working directory: ${fixture.home}\n`);
      expect(result.text).toMatch(/^-rw-r----- .* 6 \w{3} +\d+ \d\d:\d\d hard/m);
      expect(result.text).toMatch(/^lrwxrwxrwx .* symbolic/m);
      expect(result.text).toMatch(/^drwxr-xr-x .* folder/m);
      expect(result.text).toContain('folder/b');
      expect(result.text).toMatch(/%Capacity|Use%|\d+%/);
      expect(await readFile(inHome('symbolic'), 'utf8')).toBe('hello\n');
      expect(await readlink(inHome('symbolic'))).toBe('folder/b');
      expect((await stat(inHome('hard'))).nlink).toBe(2);
      const removed = await sftp('rm symbolic', 'rm hard', 'rm folder/b', 'rmdir folder');
      expect(removed.code).toBe(0);
      expect(existsSync(inHome('folder'))).toBe(false);
    });

    test('appends to a half-transferred file, both ways', async () => {
      const data = randomBytes(3_000_000);
      await writeFile(local('whole'), data);
      await writeFile(inHome('part'), data.subarray(0, 1_000_000));
      await writeFile(local('partly'), data.subarray(0, 2_500_000));
      const result = await sftp('reput whole part', 'reget part partly');
      expect(result.code).toBe(0);
      expect(md5(await readFile(inHome('part')))).toBe(md5(data));
      expect(md5(await readFile(local('partly')))).toBe(md5(data));
    });

    test('says what went wrong', async () => {
      await mkdir(inHome('full'));
      await writeFile(inHome('full/file'), '');
      const result = await sftp(
        '-get no-such-file',
        '-rmdir full',
        '-cd no-such-folder',
        '-put small no/such/folder',
        '-chmod 600 no-such-file',
        'pwd',
      );
      expect(result.code).toBe(0);
      expect(result.text).toMatch(/no-such-file.* not found/);
      expect(result.text).toMatch(/ENOTEMPTY|Failure/);
      expect(result.text).toMatch(/No such file or directory/i);
    });

    test('a folder of 2,500 names, and names that are not UTF-8', async () => {
      await mkdir(inHome('many'));
      await Promise.all(
        Array.from({ length: 2500 }, (_, index) => writeFile(inHome(`many/file ${index} ä`), '')),
      );
      const odd = Buffer.concat([Buffer.from(`${fixture.home}/many/`), Buffer.of(0x62, 0xe4, 0x64)]);
      await writeFile(odd, 'odd');
      await mkdir(local('copied'));
      const result = await sftp('ls -1 many', 'get -r many copied');
      expect(result.code).toBe(0);
      expect(result.text.match(/^many\/file \d+ /gm)?.length).toBe(2500);
      const names = await readdir(local('copied/many'), { encoding: 'buffer' });
      expect(names.length).toBe(2501);
      expect(names.some((name) => name.equals(Buffer.of(0x62, 0xe4, 0x64)))).toBe(true);
    });
  });

  test.skipIf(!has('scp'))('scp -r -p copies a tree there and back (needs scp)', async () => {
    await mkdir(local('tree/inner'), { recursive: true });
    const data = randomBytes(700_000);
    await writeFile(local('tree/inner/data'), data);
    await writeFile(local('tree/run.sh'), '#!/bin/sh\n', { mode: 0o755 });
    await utimes(local('tree/run.sh'), 1_500_000_000, 1_500_000_000);
    const there = await fixture.run('scp', ['-F', fixture.config, '-rp', 'tree', 'ws:~/copy']);
    expect(there).toMatchObject({ code: 0, stderr: '' });
    expect(md5(await readFile(inHome('copy/inner/data')))).toBe(md5(data));
    const copied = await stat(inHome('copy/run.sh'));
    expect([copied.mode & 0o777, copied.mtimeMs]).toEqual([0o755, 1_500_000_000_000]);
    const back = await fixture.run('scp', ['-F', fixture.config, '-rp', 'ws:copy', 'back-tree']);
    expect(back).toMatchObject({ code: 0, stderr: '' });
    expect(md5(await readFile(local('back-tree/inner/data')))).toBe(md5(data));
    const missing = await fixture.run('scp', ['-F', fixture.config, 'ws:missing', '.']);
    expect(missing.code).toBe(1);
    const old = await fixture.run('scp', ['-O', '-F', fixture.config, 'ws:copy/inner/data', 'old']);
    expect(old.code).toBe(0);
    expect(md5(await readFile(local('old')))).toBe(md5(data));
  });

  test.skipIf(!has('rsync') || !has('ssh'))(
    'rsync -a --delete makes both sides the same (needs rsync)',
    async () => {
      await mkdir(local('source/deep/er'), { recursive: true });
      await Promise.all(
        Array.from({ length: 200 }, (_, index) =>
          writeFile(local(`source/deep/${index}`), randomBytes(5000)),
        ),
      );
      await symlink('deep/1', local('source/link'));
      await mkdir(inHome('target'), { recursive: true });
      await writeFile(inHome('target/stray'), 'to be deleted');
      const shell = `ssh -F ${fixture.config}`;
      const sync = () =>
        fixture.run('rsync', ['-a', '--delete', '--stats', '-e', shell, 'source/', 'ws:target/']);
      expect(await sync()).toMatchObject({ code: 0, stderr: '' });
      const compared = await fixture.run('diff', [
        '-r',
        '--no-dereference',
        local('source'),
        inHome('target'),
      ]);
      expect(compared).toMatchObject({ code: 0 });
      await rm(local('source/deep/7'));
      const again = await sync();
      expect(again.stdout.toString()).toMatch(/Number of regular files transferred: 0/);
      expect(existsSync(inHome('target/deep/7'))).toBe(false);
    },
  );

  test.skipIf(!has('git') || !has('ssh'))(
    'git clones, fetches and pushes over ssh (needs git, ssh)',
    async () => {
      const environment = {
        GIT_SSH_COMMAND: `ssh -F ${fixture.config}`,
        GIT_AUTHOR_NAME: 'A',
        GIT_AUTHOR_EMAIL: 'a@example.com',
        GIT_COMMITTER_NAME: 'A',
        GIT_COMMITTER_EMAIL: 'a@example.com',
      };
      const git = (...args: string[]) => fixture.run('git', args, { environment });
      await git('init', '-q', '--bare', '-b', 'main', inHome('repo.git'));
      expect(await git('clone', '-q', 'ws:repo.git', 'clone')).toMatchObject({ code: 0 });
      await writeFile(local('clone/file'), randomBytes(2_000_000));
      await git('-C', 'clone', 'add', '.');
      await git('-C', 'clone', 'commit', '-q', '-m', 'one');
      expect(await git('-C', 'clone', 'push', '-q', 'origin', 'HEAD:main')).toMatchObject({ code: 0 });
      expect(await git('clone', '-q', 'ssh://ws/~/repo.git', 'second')).toMatchObject({ code: 0 });
      expect(md5(await readFile(local('second/file')))).toBe(md5(await readFile(local('clone/file'))));
    },
  );

  const fuse = has('sshfs') && has('ssh') && has('fusermount3') && existsSync('/dev/fuse');
  test.skipIf(!fuse)('sshfs mounts the home (needs sshfs, fusermount3, /dev/fuse)', async () => {
    const mount = local('mount');
    await mkdir(mount);
    // In the foreground, so that it ends with the test whatever happens.
    const mounted = fixture.run('sshfs', ['-f', '-F', fixture.config, 'ws:', mount]);
    try {
      await until(async () => {
        const [here, there] = await Promise.all([stat(mount), stat(fixture.folder)]);
        return here.dev !== there.dev;
      }, 'mounted');
      const at = (name: string) => join(mount, name);
      const data = randomBytes(5_000_000);
      await writeFile(at('one'), data);
      expect(md5(await readFile(at('one')))).toBe(md5(data));
      // As editors save: write beside, then rename over.
      await writeFile(at('two'), 'new');
      await rename(at('two'), at('one'));
      expect(await readFile(inHome('one'), 'utf8')).toBe('new');
      await symlink('one', at('pointer'));
      expect(await readlink(at('pointer'))).toBe('one');
      await link(at('one'), at('another'));
      expect((await stat(inHome('one'))).nlink).toBe(2);
      await chmod(at('one'), 0o600);
      await truncate(at('one'), 1);
      await utimes(at('one'), 1_400_000_000, 1_400_000_000);
      const stats = await lstat(inHome('one'));
      expect([stats.mode & 0o777, stats.size, stats.mtimeMs]).toEqual([0o600, 1, 1_400_000_000_000]);
      await writeFile(at('one'), 'more', { flag: 'a' });
      expect((await readFile(inHome('one'), 'utf8')).slice(1)).toBe('more');
      expect((await statfs(mount)).blocks).toBeGreaterThan(0);
      expect((await readdir(mount)).sort()).toEqual((await readdir(fixture.home)).sort());
    } finally {
      await fixture.run('fusermount3', ['-u', mount]);
      await mounted;
    }
  });

  describe('the protocol, through ssh2’s client', () => {
    let connection: ssh2.Client;
    let files: ssh2.SFTPWrapper;
    beforeAll(async () => {
      connection = new ssh2.Client();
      files = await new Promise((resolve, reject) => {
        connection.once('error', reject);
        connection.once('ready', () =>
          connection.sftp((error, wrapper) => (error ? reject(error) : resolve(wrapper))),
        );
        connection.connect({ sock: connect(fixture.socket), username: 'dev' });
      });
    });
    afterAll(() => {
      connection.end();
    });

    /** Makes a promise of one call. */
    function call<T>(run: (done: (error: Error | null | undefined, value: T) => void) => void): Promise<T> {
      return new Promise((resolve, reject) =>
        run((error, value) => (error ? reject(error) : resolve(value))),
      );
    }

    test('open: exclusive, append, truncate, modes and missing files', async () => {
      const path = inHome('opened');
      const first = await call<Buffer>((done) => files.open(path, 'wx', { mode: 0o600 }, done));
      await call((done) => files.write(first, Buffer.from('abc'), 0, 3, 0, (error) => done(error, null)));
      await call((done) => files.fsetstat(first, { mode: 0o640 }, (error) => done(error, null)));
      expect((await call<ssh2.Stats>((done) => files.fstat(first, done))).size).toBe(3);
      await call((done) => files.close(first, (error) => done(error, null)));
      await expect(call((done) => files.open(path, 'wx', done))).rejects.toMatchObject({ code: 4 });
      await expect(call((done) => files.open(inHome('none'), 'r', done))).rejects.toMatchObject({ code: 2 });
      const append = await call<Buffer>((done) => files.open(path, 'a', done));
      // The position says nothing in this mode.
      for (const text of ['d', 'e', 'f']) {
        await call((done) => files.write(append, Buffer.from(text), 0, 1, 0, (error) => done(error, null)));
      }
      await call((done) => files.close(append, (error) => done(error, null)));
      expect([await readFile(path, 'utf8'), (await stat(path)).mode & 0o777]).toEqual(['abcdef', 0o640]);
      const shortened = await call<Buffer>((done) => files.open(path, 'w', done));
      await call((done) => files.close(shortened, (error) => done(error, null)));
      expect((await stat(path)).size).toBe(0);
      await expect(call((done) => files.close(shortened, (error) => done(error, null)))).rejects.toThrow();
    });

    test('rename keeps an existing file, posix-rename replaces it', async () => {
      await writeFile(inHome('from'), 'from');
      await writeFile(inHome('to'), 'to');
      await expect(
        call((done) => files.rename(inHome('from'), inHome('to'), (error) => done(error, null))),
      ).rejects.toMatchObject({ code: 4 });
      expect(await readFile(inHome('to'), 'utf8')).toBe('to');
      await call((done) =>
        files.ext_openssh_rename(inHome('from'), inHome('to'), (error) => done(error, null)),
      );
      expect(await readFile(inHome('to'), 'utf8')).toBe('from');
      await expect(access(inHome('from'))).rejects.toThrow();
      await mkdir(inHome('one-folder'));
      await mkdir(inHome('other-folder'));
      await expect(
        call((done) =>
          files.rename(inHome('one-folder'), inHome('other-folder'), (error) => done(error, null)),
        ),
      ).rejects.toMatchObject({ code: 4 });
      await call((done) =>
        files.rename(inHome('one-folder'), inHome('third-folder'), (error) => done(error, null)),
      );
      expect(existsSync(inHome('third-folder'))).toBe(true);
    });

    test('realpath, statvfs, fsync, hard links, times', async () => {
      expect(await call<string>((done) => files.realpath('.', done))).toBe(fixture.home);
      await expect(call<string>((done) => files.realpath('not/../yet-there', done))).rejects.toMatchObject({
        code: 2,
      });
      expect(await call<string>((done) => files.realpath('yet-there', done))).toBe(inHome('yet-there'));
      expect(await call<string>((done) => files.realpath('/', done))).toBe('/');
      const space = await call<{ f_blocks: number }>((done) => files.ext_openssh_statvfs('.', done as never));
      expect(space.f_blocks).toBeGreaterThan(0);
      await writeFile(inHome('timed'), 'x');
      await call((done) =>
        files.utimes(inHome('timed'), 1_300_000_000, 1_300_000_001, (error) => done(error, null)),
      );
      expect((await stat(inHome('timed'))).mtimeMs).toBe(1_300_000_001_000);
      await call((done) =>
        files.ext_openssh_hardlink(inHome('timed'), inHome('linked'), (error) => done(error, null)),
      );
      const handle = await call<Buffer>((done) => files.open(inHome('timed'), 'r+', done));
      await call((done) => files.ext_openssh_fsync(handle, (error) => done(error, null)));
      await call((done) => files.close(handle, (error) => done(error, null)));
      expect((await lstat(inHome('linked'))).nlink).toBe(2);
    });

    test('a symbolic link points where clients say that know OpenSSH by its banner', async () => {
      await call((done) => files.symlink('the-target', inHome('the-link'), (error) => done(error, null)));
      expect(await readlink(inHome('the-link'))).toBe('the-target');
    });

    test('long names begin as those of ls do, for every type of file', async () => {
      await mkdir(inHome('types/folder'), { recursive: true });
      await writeFile(inHome('types/file'), '');
      await symlink('file', inHome('types/link'));
      execFileSync('mkfifo', [inHome('types/pipe')]);
      const listening = createServer().listen(inHome('types/socket'));
      await once(listening, 'listening');
      const listed = await call<ssh2.FileEntry[]>((done) => files.readdir(inHome('types'), done));
      const devices = await call<ssh2.FileEntry[]>((done) => files.readdir('/dev', done));
      listening.close();
      const letters = [...listed, ...devices]
        .filter(({ filename }) => /^(folder|file|link|pipe|socket|null)$/.test(filename))
        .map(({ filename, longname }) => `${filename} ${longname[0]}`);
      expect(letters.sort()).toEqual(['file -', 'folder d', 'link l', 'null c', 'pipe p', 'socket s']);
    });

    test('a request that is no request ends the session and nothing else', async () => {
      const channel = await call<ssh2.ClientChannel>((done) => connection.subsys('sftp', done));
      channel.write(Buffer.of(0xff, 0xff, 0xff, 0xff, 1, 2, 3));
      channel.resume();
      await new Promise((resolve) => channel.once('close', resolve));
      expect(await call<string>((done) => files.realpath('.', done))).toBe(fixture.home);
      await expect(call((done) => connection.subsys('no-such-subsystem', done as never))).rejects.toThrow();
    });
  });
});
