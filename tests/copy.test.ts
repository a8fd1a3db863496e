import { execFileSync } from 'node:child_process';
import { mkdirSync, rmdirSync } from 'node:fs';
import {
  chmod,
  lstat,
  mkdir,
  readdir,
  readFile,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cloneDatabase } from './kit/database.ts';
import { cde, type Machine, makeMachine } from './kit/machine.ts';
import { until } from './kit/until.ts';

/** `cde cp` and `cde rsync` by the real programs: server, agent, OpenSSH, rsync. */
const has = (program: string) => {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};

/** Root may, outside of most containers. */
function canMount(): boolean {
  const at = join(tmpdir(), `cde-mount-${process.pid}`);
  mkdirSync(at);
  try {
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', at], { stdio: 'ignore' });
    execFileSync('umount', [at]);
    return true;
  } catch {
    return false;
  } finally {
    rmdirSync(at);
  }
}

let machine: Machine;
/** The laptop's folder, and the workspace's home. */
let here: string;
let home: string;
beforeAll(async () => {
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  here = join(machine.folder, 'laptop');
  await mkdir(here, { recursive: true });
  await machine.start();
  const homes = join(machine.env.CDE_DATA_DIR!, 'homes');
  home = join(homes, (await readdir(homes)).find((name) => !name.startsWith('.'))!);
});
afterAll(() => machine?.remove());

const bytesOf = (count: number, seed: number) =>
  Buffer.from(
    Uint32Array.from({ length: Math.ceil(count / 4) }, (_, at) => (at * 2654435761 + seed) >>> 0).buffer,
  ).subarray(0, count);
const cp = (...args: string[]) => machine.run(process.execPath, [cde, 'cp', ...args]);
const put = async (path: string, content: string | Buffer) => {
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(path, content);
};

test('copies a file there and back, byte for byte, under its own name or the one given', async () => {
  const content = bytesOf(3_000_001, 1);
  await put(join(here, 'big'), content);
  expect(await cp(join(here, 'big'), 'hello:')).toMatchObject({ code: 0, stdout: '' });
  expect((await readFile(join(home, 'big'))).equals(content)).toBe(true);
  const ran = await cp('--json', 'hello:big', join(here, 'back'));
  expect(JSON.parse(ran.stdout)).toMatchObject({ files: 1, bytes: 3_000_001, keptBytes: 0 });
  expect((await readFile(join(here, 'back'))).equals(content)).toBe(true);
  await put(join(here, 'empty'), '');
  expect((await cp(join(here, 'empty'), 'hello:~/nothing')).code).toBe(0);
  expect((await stat(join(home, 'nothing'))).size).toBe(0);
  // No part stays behind.
  expect((await readdir(home)).filter((name) => name.includes('part'))).toEqual([]);
});

test('copies folders: follows links, -p keeps times and permissions, existing files keep theirs', async () => {
  const tree = join(here, 'tree');
  await put(join(tree, 'a/b/run.sh'), '#!/bin/sh\n');
  await put(join(tree, 'ünï cödé\n'), 'odd');
  await symlink('a/b/run.sh', join(tree, 'link'));
  await symlink('..', join(tree, 'a/loop'));
  await chmod(join(tree, 'a/b/run.sh'), 0o751);
  await utimes(join(tree, 'a/b/run.sh'), 1_000_000_000, 1_000_000_000);
  await utimes(join(tree, 'a/b'), 1_100_000_000, 1_100_000_000);
  expect(await cp(tree, 'hello:')).toMatchObject({ code: 1, stderr: expect.stringContaining('-r') });
  const ran = await cp('-rp', tree, 'hello:');
  expect(ran).toMatchObject({ code: 1, stderr: expect.stringContaining('leads back') });
  const run = await stat(join(home, 'tree/a/b/run.sh'));
  expect([run.mode & 0o777, run.mtimeMs]).toEqual([0o751, 1_000_000_000_000]);
  expect((await stat(join(home, 'tree/a/b'))).mtimeMs).toBe(1_100_000_000_000);
  expect((await lstat(join(home, 'tree/link'))).isFile()).toBe(true);
  expect(await readFile(join(home, 'tree/ünï cödé\n'), 'utf8')).toBe('odd');
  // Contents alone, into a new folder of another name.
  expect((await cp('-r', 'hello:tree/a/b/.', join(here, 'contents'))).code).toBe(0);
  expect(await readdir(join(here, 'contents'))).toEqual(['run.sh']);
  // Over a file that is there: through a link, with its rights.
  await put(join(here, 'secret'), 'old');
  await chmod(join(here, 'secret'), 0o600);
  await symlink('secret', join(here, 'way'));
  expect((await cp('hello:tree/a/b/run.sh', join(here, 'way'))).code).toBe(0);
  expect((await lstat(join(here, 'way'))).isSymbolicLink()).toBe(true);
  expect((await stat(join(here, 'secret'))).mode & 0o777).toBe(0o600);
  expect(await readFile(join(here, 'secret'), 'utf8')).toBe('#!/bin/sh\n');
});

test('copies several sources and patterns, and refuses invalid ones', async () => {
  await put(join(home, 'logs/one.log'), '1');
  await put(join(home, 'logs/two.log'), '2');
  await put(join(home, 'logs/other'), '3');
  await mkdir(join(here, 'logs'));
  expect((await cp('hello:logs/*.log', 'hello:logs/other', join(here, 'logs'))).code).toBe(0);
  expect((await readdir(join(here, 'logs'))).sort()).toEqual(['one.log', 'other', 'two.log']);
  expect((await cp('hello:logs/one.log', 'hello:copied')).code).toBe(0);
  expect(await readFile(join(home, 'copied'), 'utf8')).toBe('1');
  const some = await cp('hello:logs/one.log', 'hello:absent', join(here, 'logs'));
  expect(some).toMatchObject({ code: 1, stderr: expect.stringContaining('[copy-incomplete]') });
  for (const [args, code, words] of [
    [['hello:absent', here], 3, 'file-not-found'],
    [['hello:logs/*.none', here], 3, 'file-not-found'],
    [['a', 'b'], 2, 'usage'],
    [['hello:x'], 2, 'usage'],
    [['hello:logs/one.log', 'hello:logs/two.log', join(here, 'absent')], 1, 'file-not-folder'],
    [['nobody:x', here], 3, 'workspace-not-found'],
    [['hello:logs/one.log', join(here, 'no/such/folder/x')], 1, 'file-failed'],
  ] as const) {
    const ran = await cp(...args);
    expect([args, ran.code, ran.stderr]).toEqual([args, code, expect.stringContaining(`[${words}]`)]);
  }
});

test('resumes an interrupted copy, but not from a partial copy of another file', async () => {
  // Large enough to be interrupted while it is copied.
  const size = 48 * 1024 * 1024;
  await put(join(home, 'long'), bytesOf(size, 3));
  const target = join(here, 'long');
  const parts = async () => (await readdir(here)).filter((name) => name.endsWith('.cde-part'));
  const running = machine.begin(['cp', 'hello:long', target]);
  const [part] = await until(parts, (names) => names.length > 0);
  const partSize = async () => (await stat(join(here, part!))).size;
  await until(partSize, (now) => now > 2_000_000);
  running.process.kill('SIGKILL');
  await running.ended;
  const left = await partSize();
  expect(left).toBeLessThan(size);
  const copied = async () => JSON.parse((await cp('--json', 'hello:long', target)).stdout);
  expect(await copied()).toMatchObject({ files: 1, bytes: size - left, keptBytes: left });
  expect(execFileSync('cmp', [join(home, 'long'), target]).length).toBe(0);
  expect(await parts()).toEqual([]);
  // The end of the part is not that of the source.
  await writeFile(join(here, part!), bytesOf(1_000_000, 2));
  expect(await copied()).toMatchObject({ bytes: size, keptBytes: 0 });
  // A link in the part's place is not written through.
  await put(join(here, 'victim'), 'mine');
  await symlink('victim', join(here, part!));
  expect(await copied()).toMatchObject({ files: 1 });
  expect(await readFile(join(here, 'victim'), 'utf8')).toBe('mine');
  expect(execFileSync('cmp', [join(home, 'long'), target]).length).toBe(0);
});

test('sparse files stay sparse, both ways', async () => {
  const size = 16 * 1024 * 1024;
  await put(join(here, 'sparse'), 'start');
  await truncate(join(here, 'sparse'), size);
  expect(await cp(join(here, 'sparse'), 'hello:')).toMatchObject({ code: 0 });
  expect(await cp('hello:sparse', join(here, 'sparse-back'))).toMatchObject({ code: 0 });
  expect(execFileSync('cmp', [join(here, 'sparse'), join(here, 'sparse-back')]).length).toBe(0);
  for (const copy of [join(home, 'sparse'), join(here, 'sparse-back')])
    expect((await stat(copy)).blocks * 512).toBeLessThan(1024 * 1024);
});

test('a - is standard input or output', async () => {
  const content = bytesOf(1_000_003, 4);
  const run = (args: string[], input?: Buffer) => machine.run(process.execPath, [cde, 'cp', ...args], input);
  expect(await run(['-', 'hello:from-stdin'], content)).toMatchObject({ code: 0, stdout: '' });
  expect((await readFile(join(home, 'from-stdin'))).equals(content)).toBe(true);
  await chmod(join(home, 'from-stdin'), 0o600);
  expect(await run(['-', 'hello:from-stdin'], Buffer.from('ünï\n'))).toMatchObject({ code: 0 });
  expect((await stat(join(home, 'from-stdin'))).mode & 0o777).toBe(0o600);
  expect(await run(['hello:from-stdin', '-'])).toMatchObject({ code: 0, stdout: 'ünï\n' });
  expect((await readdir(home)).filter((name) => name.includes('part'))).toEqual([]);
  for (const [args, code, words] of [
    [['-', 'hello:'], 1, 'file-is-folder'],
    [['hello:logs', '-'], 1, 'file-is-folder'],
    [['hello:absent', '-'], 3, 'file-not-found'],
    [['-', '-'], 2, 'usage'],
    [['hello:from-stdin', '-', '-'], 2, 'usage'],
    [['--json', 'hello:from-stdin', '-'], 2, 'usage'],
  ] as const)
    expect(await run([...args])).toMatchObject({ code, stderr: expect.stringContaining(words) });
});

test('setuid, setgid and sticky bits of a workspace are never copied', async () => {
  await put(join(home, 'bits/run'), '#!/bin/sh\n');
  await chmod(join(home, 'bits/run'), 0o6755);
  await chmod(join(home, 'bits'), 0o3777);
  expect(await cp('-rp', 'hello:bits', here)).toMatchObject({ code: 0 });
  expect((await stat(join(here, 'bits/run'))).mode & 0o7777).toBe(0o755);
  expect((await stat(join(here, 'bits'))).mode & 0o7777).toBe(0o777);
  // What takes the place of a file with such a bit does not get it either.
  await chmod(join(here, 'bits/run'), 0o4711);
  expect(await cp('hello:bits/run', join(here, 'bits/run'))).toMatchObject({ code: 0 });
  expect((await stat(join(here, 'bits/run'))).mode & 0o7777).toBe(0o711);
});

test('names that are not UTF-8 are reported, and no other name is invented for them', async () => {
  const name = (folder: string) => Buffer.concat([Buffer.from(`${folder}/caf`), Buffer.from([0xe9])]);
  for (const root of [here, home]) {
    await put(join(root, 'bytes/plain'), 'p');
    await writeFile(name(join(root, 'bytes')), 'b');
  }
  for (const [args, shown] of [
    [['-r', join(here, 'bytes'), 'hello:bytes-copy'], 'caf\\xE9'],
    [['-r', 'hello:bytes', join(here, 'bytes-copy')], 'caf\ufffd'],
  ] as const) {
    const ran = await cp(...args);
    expect(ran).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`${shown} has a name that is not UTF-8`),
    });
  }
  expect([await readdir(join(home, 'bytes-copy')), await readdir(join(here, 'bytes-copy'))]).toEqual([
    ['plain'],
    ['plain'],
  ]);
  // As an argument, by a shell: Node would pass on the name of another file.
  const shell = (command: string) =>
    machine.run('bash', ['-c', `${command.replace('cde', `'${process.execPath}' '${cde}'`)}`]);
  for (const command of [
    `cde cp ${here}/bytes/plain hello:$'caf\\xe9'`,
    `cde sync --once ${here}/$'caf\\xe9' hello:x`,
    `cde rsync -a ${here}/bytes/$'caf\\xe9' hello:`,
  ])
    expect(await shell(command)).toMatchObject({ code: 2, stderr: expect.stringContaining('is not UTF-8') });
});

describe.skipIf(!canMount())('on a full disk', () => {
  test('the file and the reason are printed once, and nothing is left behind', async () => {
    await put(join(here, 'large'), bytesOf(6_000_000, 5));
    expect((await cp(join(here, 'large'), 'hello:large')).code).toBe(0);
    const full = join(here, 'full');
    await mkdir(full);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', full]);
    try {
      const ran = await cp('hello:large', join(full, 'large'));
      expect(ran).toMatchObject({ code: 1, stdout: '' });
      expect(ran.stderr).toContain('the disk is full (ENOSPC)');
      expect(ran.stderr).not.toContain('fault in');
      expect(ran.stderr.match(/full\/[^ ]*large/g)).toHaveLength(1);
      expect(await readdir(full)).toEqual([]);
    } finally {
      execFileSync('umount', [full]);
    }
  });
});

test('starts a stopped workspace only if asked to', async () => {
  await machine.cde('stop', 'hello');
  expect(await cp('hello:big', here)).toMatchObject({ code: 5 });
  expect((await cp('--start', 'hello:big', here)).code).toBe(0);
});

describe.skipIf(!has('rsync') || !has('ssh'))('with rsync', () => {
  const rsync = (...args: string[]) => machine.cde('rsync', ...args);

  test('accepts the options of rsync, both ways, and OWNER/NAME', async () => {
    await put(join(here, 'site/index.html'), 'hi');
    await put(join(here, 'site/drop.tmp'), 'x');
    expect(await rsync('-a', '--exclude', '*.tmp', `${here}/site/`, 'hello:site/')).toMatchObject({
      code: 0,
    });
    expect(await readdir(join(home, 'site'))).toEqual(['index.html']);
    const { owner } = JSON.parse((await machine.cde('show', 'hello', '--json')).stdout);
    expect(await rsync('-a', `${owner}/hello:site/`, `${here}/mirror/`)).toMatchObject({ code: 0 });
    expect(await readFile(join(here, 'mirror/index.html'), 'utf8')).toBe('hi');
    expect((await rsync('-a', 'hello:absent', here)).code).toBe(23);
    expect(await rsync('-a', here, '/tmp/nowhere')).toMatchObject({ code: 2 });
  });

  test('reports if rsync is missing on either side', async () => {
    const bin = join(machine.folder, 'bin');
    await mkdir(bin);
    await symlink(process.execPath, join(bin, 'node'));
    const there = await machine.cde('rsync', '--rsync-path=no-such-rsync', '-a', 'hello:site/', `${here}/x/`);
    expect(there).toMatchObject({ code: 1, stderr: expect.stringContaining('no rsync in the workspace') });
    const PATH = machine.env.PATH;
    machine.env.PATH = bin;
    try {
      const ran = await machine.run(process.execPath, [cde, 'rsync', '-a', 'hello:site/', here]);
      expect(ran).toMatchObject({ code: 1, stderr: expect.stringContaining('no rsync on this machine') });
    } finally {
      machine.env.PATH = PATH;
    }
  });
});
