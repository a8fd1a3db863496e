import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { cloneDatabase } from './kit/database.ts';
import { type Machine, makeMachine, type Running } from './kit/machine.ts';
import { until } from './kit/until.ts';

/** `cde sync` by the real programs: server, agent, and a folder on either side. */
let machine: Machine;
let home: string;
let here: string;
let there: string;
let number = 0;
beforeAll(async () => {
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  await mkdir(machine.env.HOME!, { recursive: true });
  await machine.start();
  const homes = join(machine.env.CDE_DATA_DIR!, 'homes');
  home = join(homes, (await readdir(homes)).find((name) => !name.startsWith('.'))!);
});
afterAll(() => machine?.remove());
beforeEach(() => {
  number += 1;
  here = join(machine.env.HOME!, `project${number}`);
  there = join(home, `work/project${number}`);
});

const target = () => `hello:work/project${number}`;
const sync = (...args: string[]) => machine.cde('sync', here, target(), ...args);
const put = async (path: string, text: string) => {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
};
const read = (path: string) => readFile(path, 'utf8').catch(() => null);
const reads = (path: string, text: string | null) =>
  until(
    () => read(path),
    (now) => now === text,
  );
const events = (output: string) =>
  output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));
const end = async (running: Running) => {
  running.process.kill('SIGINT');
  return (await running.ended).code;
};

test('--once: dry run, both sides become the same, deletions are recognized the next time', async () => {
  await put(join(here, 'src/app.ts'), 'app');
  await put(join(here, 'node_modules/left/index.js'), 'left');
  await put(join(here, '.git/config'), 'mine');
  await put(join(here, 'build.log'), 'log');
  await put(join(here, '.cdeignore'), '*.log\n');
  const dry = await sync('--dry-run');
  expect(dry).toMatchObject({ code: 0, stdout: '→ src/\n→ .cdeignore\n→ src/app.ts\n' });
  expect(await stat(there).catch(() => null)).toBeNull();
  const first = await sync('--once', '--json');
  expect(first.code).toBe(0);
  const told = events(first.stdout);
  expect([told[0], told[1], told.at(-1)]).toEqual([
    expect.objectContaining({ event: 'begin', local: here, workspace: 'hello' }),
    { event: 'change', do: 'folder', side: 'remote', path: 'src' },
    { event: 'settled', files: 2, problems: 0 },
  ]);
  // Files are transferred concurrently.
  const copied = told.filter((event) => event.do === 'copy').map(({ path }) => path);
  expect(copied.sort()).toEqual(['.cdeignore', 'src/app.ts']);
  expect(told).toHaveLength(5);
  expect((await readdir(there)).sort()).toEqual(['.cdeignore', 'src']);
  await rm(join(there, 'src'), { recursive: true });
  await put(join(there, 'new.txt'), 'new');
  expect(await sync('--once')).toMatchObject({
    code: 0,
    stdout: '← src/app.ts removed\n← src removed\n← new.txt\n',
  });
  expect((await readdir(here)).sort()).toEqual([
    '.cdeignore',
    '.git',
    'build.log',
    'new.txt',
    'node_modules',
  ]);
  // A new home is no reason to delete local files.
  await rm(there, { recursive: true });
  expect(await sync('--once')).toMatchObject({ code: 5, stderr: expect.stringContaining('[sync-emptied]') });
  expect(await read(join(here, 'new.txt'))).toBe('new');
  await mkdir(there);
  expect(await sync('--once')).toMatchObject({ code: 5, stderr: expect.stringContaining('[sync-emptied]') });
  expect(await read(join(here, 'new.txt'))).toBe('new');
  await rm(there, { recursive: true });
  expect(await sync('--once', '--forget')).toMatchObject({ code: 0 });
  expect(await read(join(there, 'new.txt'))).toBe('new');
  expect(await read(join(here, 'new.txt'))).toBe('new');
  // What says what is left out cannot be read: nothing is copied for that.
  await rm(join(here, '.cdeignore'));
  await mkdir(join(here, '.cdeignore'));
  await writeFile(join(here, 'secret'), 'key');
  expect(await sync('--once')).toMatchObject({ stderr: expect.stringContaining('[sync-failed]') });
  expect(await readdir(there)).not.toContain('secret');
});

test(
  'keeps running: changes both ways, a conflict, a restarted agent; one process for each pair',
  {
    timeout: 60_000,
  },
  async () => {
    await put(join(here, 'a'), '1');
    const running = machine.begin(['sync', here, target(), '--json']);
    await reads(join(there, 'a'), '1');
    await put(join(here, 'b/c'), '1');
    await reads(join(there, 'b/c'), '1');
    await put(join(there, 'b/c'), '2');
    await reads(join(here, 'b/c'), '2');
    const second = await sync();
    expect(second).toMatchObject({ code: 5, stderr: expect.stringContaining('[sync-running]') });
    const list = async () => JSON.parse((await machine.cde('sync', '--list', '--json')).stdout);
    const listed = await until(list, (pairs) =>
      pairs.some(
        ({ local, running: by }: { local: string; running: { state: string } | null }) =>
          local === here && by?.state === 'settled',
      ),
    );
    expect(listed).toContainEqual(
      expect.objectContaining({
        workspace: 'hello',
        running: expect.objectContaining({ pid: running.process.pid }),
      }),
    );
    // The agent is killed; both sides change the same file while nobody watches.
    await machine.cde('ssh', 'hello', '--', 'kill -9 $PPID; exec sleep 30');
    await Promise.all([
      put(join(here, 'a'), 'mine'),
      put(join(there, 'a'), 'theirs'),
      put(join(there, 'd'), '4'),
    ]);
    await reads(join(here, 'd'), '4');
    const kept = await until(
      () => readdir(here),
      (names) => names.some((name) => name.startsWith('a.conflict-hello-')),
    );
    expect(await read(join(here, 'a'))).toBe('mine');
    await reads(join(there, 'a'), 'mine');
    const name = kept.find((each) => each.includes('conflict'))!;
    expect([await read(join(here, name)), await read(join(there, name))]).toEqual(['theirs', 'theirs']);
    expect(events(running.output())).toContainEqual({ event: 'conflict', path: 'a', kept: name });
    // Deleted here, deleted there.
    await rm(join(here, name));
    await reads(join(there, name), null);
    // Killed: the next one takes its place, and has not forgotten.
    running.process.kill('SIGKILL');
    await running.ended;
    await rm(join(here, 'b'), { recursive: true });
    const next = machine.begin(['sync', here, target()]);
    await reads(join(there, 'b/c'), null);
    expect(await end(next)).toBe(130);
    expect(
      (await readdir(join(machine.env.CDE_CONFIG_DIR!, 'sync'))).filter((each) => each.endsWith('.sock')),
    ).toEqual([]);
  },
);

test('a program in the workspace cannot make the laptop send what it excludes', async () => {
  await put(join(here, '.env'), 'SECRET');
  await put(join(here, 'a'), '1');
  await put(join(here, '.cdeignore'), '.env\n');
  const running = machine.begin(['sync', here, target()]);
  await reads(join(there, 'a'), '1');
  await machine.cde('ssh', 'hello', '--', `: > work/project${number}/.cdeignore`);
  await running.says(/! \.cdeignore was changed in the workspace.*cde cp hello:work/);
  // Rounds later, and in a new process.
  await put(join(here, 'b'), '2');
  await reads(join(there, 'b'), '2');
  expect(await end(running)).toBe(130);
  expect(await sync('--once')).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('only yours applies'),
  });
  expect((await readdir(there)).sort()).toEqual(['.cdeignore', 'a', 'b']);
  expect(await read(join(here, '.cdeignore'))).toBe('.env\n');
  // As the line says: the person takes it over.
  const taken = await machine.cde('cp', `${target()}/.cdeignore`, join(here, '.cdeignore'));
  expect(taken.code).toBe(0);
  expect(await sync('--once')).toMatchObject({ code: 0 });
  expect(await read(join(there, '.env'))).toBe('SECRET');
});

test('stopping the workspace ends it with a message', async () => {
  await put(join(here, 'a'), '1');
  const running = machine.begin(['sync', here, target()]);
  await reads(join(there, 'a'), '1');
  await machine.cde('stop', 'hello');
  const ran = await running.ended;
  expect(ran).toMatchObject({
    code: 5,
    stderr: expect.stringMatching(/\[workspace-(stopped|not-running)\]/),
  });
  expect(await sync('--once')).toMatchObject({ code: 5 });
  expect(await sync('--once', '--start')).toMatchObject({ code: 0 });
});

test('neither folder exists, or one cannot be created', async () => {
  for (const way of ['--once', '--dry-run'])
    expect(await sync(way)).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(
        /Neither .*project\d+ nor hello:work\/project\d+ exists\..*\[file-not-found\]/,
      ),
    });
  expect(await stat(here).catch(() => null)).toBeNull();
  expect(await stat(there).catch(() => null)).toBeNull();
  await put(join(here, 'a'), '1');
  const ran = await machine.cde('sync', '--once', here, 'hello:/proc/cde');
  expect(ran).toMatchObject({ code: 1, stderr: expect.stringContaining('[sync-failed]') });
  expect(ran.stderr).toMatch(/\/proc\/cde cannot be made: .*\((ENOENT|EACCES|EPERM)\)/);
  // A folder that only the workspace has is made here.
  await rm(here, { recursive: true });
  await put(join(there, 'b'), '2');
  expect(await sync('--once')).toMatchObject({ code: 0 });
  expect(await read(join(here, 'b'))).toBe('2');
});

test('invalid arguments are refused', async () => {
  for (const words of [
    [],
    [here],
    [here, here],
    [target(), target()],
    [here, 'hello:'],
    [here, 'hello:~'],
    [here, 'hello:../x'],
    [here, 'hello:/'],
  ])
    expect((await machine.cde('sync', ...words)).code).toBe(2);
  await put(here, 'a file');
  expect(await sync('--once')).toMatchObject({ code: 1, stderr: expect.stringContaining('is not a folder') });
  await rm(here);
  await put(join(here, 'a'), '1');
  await put(there, 'a file');
  expect(await sync('--once')).toMatchObject({ code: 1, stderr: expect.stringContaining('is not a folder') });
});
