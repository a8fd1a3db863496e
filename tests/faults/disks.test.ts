import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startEmbedded } from '@cde/server/database/embedded.ts';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { type Api, makeApi } from '../kit/api.ts';
import { endLeftovers, type Machine, makeMachine, type Running } from '../kit/machine.ts';
import { makeDatabase } from '../kit/postgres.ts';
import { until } from '../kit/until.ts';

/** The disk of the homes or of the database fills up. Each is a tmpfs of a few megabytes. */

const mayMount = process.platform === 'linux' && process.getuid?.() === 0;
if (!mayMount) console.log('skipped: only root can mount a small disk to fill');

interface Disk {
  fill(): Promise<void>;
  free(): Promise<void>;
  unmount(): void;
}

async function mount(path: string, megabytes: number): Promise<Disk> {
  await mkdir(path, { recursive: true });
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=0711`, 'cde-test', path]);
  const filler = join(path, 'filler');
  return {
    async fill() {
      // One large file, then a small one for the rest.
      for (const size of [1024 * 1024, 4096])
        for (const piece = Buffer.alloc(size); ; )
          try {
            await writeFile(filler, piece, { flag: 'a' });
          } catch {
            break;
          }
    },
    free: () => rm(filler, { force: true }),
    unmount: () => void execFileSync('umount', ['--lazy', path]),
  };
}

describe.skipIf(!mayMount)('the disk of the homes', () => {
  let machine: Machine;
  let disk: Disk;
  let server: Running;
  beforeAll(async () => {
    machine = await makeMachine();
    await mkdir(machine.env.HOME!, { recursive: true });
    disk = await mount(machine.env.CDE_DATA_DIR!, 8);
    machine.env.DATABASE_URL = (await makeDatabase(join(machine.folder, 'database'))).url;
    server = machine.begin(['server', 'start']);
    await server.says('Ctrl-C stops');
  });
  afterAll(async () => {
    server?.process.kill('SIGINT');
    await server?.ended;
    await endLeftovers(machine.folder);
    disk?.unmount();
    await machine?.remove();
  });

  beforeEach(() => disk.free());
  let name: string;
  let attempts = 0;

  test('full: a start fails with an explanation, and succeeds once there is space', async () => {
    onTestFailed(() => console.log(server.output().slice(-4_000)));
    name = `full-${++attempts}`;
    await disk.fill();
    const refused = await machine.cde('create', name);
    expect(refused.code).toBe(7);
    expect(refused.stderr).toMatch(/The disk that holds the homes is full\. \[home-disk-full\]/);
    expect(refused.stderr).toMatch(/Free space on it/);
    expect(await machine.cde('show', name)).toMatchObject({
      stdout: expect.stringMatching(/failed[\s\S]*The disk that holds the homes is full/),
    });
    await disk.free();
    expect(await machine.cde('start', name)).toMatchObject({ code: 0 });
    expect(await machine.cde('ssh', name, '--', 'echo kept > ~/note')).toMatchObject({ code: 0 });
  });

  test('full while workspaces run: they and the server continue, and what fails says why', async () => {
    onTestFailed(() => console.log(server.output().slice(-4_000)));
    expect(await machine.cde('start', name)).toMatchObject({ code: 0 });
    await disk.fill();
    expect(await machine.cde('list')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/full-\d+\s+running/),
    });
    const writing = await machine.cde('ssh', name, '--', 'head -c 100000 /dev/zero > ~/more');
    expect(writing.code).not.toBe(0);
    expect(writing.stderr).toContain('No space left on device');
    for (const each of [name, 'hello'])
      expect(await machine.cde('ssh', each, '--', 'echo still here')).toMatchObject({
        code: 0,
        stdout: 'still here\n',
      });
    expect(await machine.cde('stop', name)).toMatchObject({ code: 0 });
    await disk.fill();
    const refused = await machine.cde('start', name);
    expect(refused).toMatchObject({ code: 7, stderr: expect.stringContaining('[home-disk-full]') });
    await disk.free();
    expect(await machine.cde('start', name)).toMatchObject({ code: 0 });
    // The home is complete.
    expect(await machine.cde('ssh', name, '--', 'cat ~/note')).toMatchObject({ code: 0, stdout: 'kept\n' });
  });
});

describe.skipIf(!mayMount)('the disk of the embedded PostgreSQL', () => {
  let machine: Machine;
  let disk: Disk;
  let server: Running;
  let api: Api;
  beforeAll(async () => {
    machine = await makeMachine();
    await mkdir(machine.env.HOME!, { recursive: true });
    disk = await mount(join(machine.env.CDE_DATA_DIR!, 'postgres'), 200);
    server = machine.begin(['server', 'start']);
    await server.says('Ctrl-C stops');
    api = await makeApi(machine, `http://${machine.env.CDE_LISTEN}`);
  });
  afterAll(async () => {
    server?.process.kill('SIGINT');
    await server?.ended;
    await endLeftovers(machine.folder);
    disk?.unmount();
    await machine?.remove();
  });

  beforeEach(() => disk.free());

  test('full: writes fail with the reason, everything else works, and writes work again once there is space', async () => {
    onTestFailed(() => console.log(server.output().slice(-4_000)));
    await disk.fill();
    const files = {
      'template.yaml': 'name: big\nprovider: local\n',
      ...Object.fromEntries(
        Array.from({ length: 2 }, (_, index) => [`${index}.txt`, randomBytes(180_000).toString('base64')]),
      ),
    };
    const publish = () => api('POST', '/api/v1/templates', { files });
    const refused = await publish();
    expect(refused).toMatchObject({
      status: 503,
      body: {
        code: 'database-unavailable',
        message: "The disk of the server's database is full.",
        detail: expect.stringContaining('No space left on device'),
        hint: expect.stringContaining('free disk space'),
      },
    });
    expect(await machine.cde('ssh', 'hello', '--', 'echo still here')).toMatchObject({
      stdout: 'still here\n',
    });
    await disk.free();
    await until(publish, (reply) => reply.status === 201);
    expect(await machine.cde('restart', 'hello')).toMatchObject({ code: 0 });
  });

  test('so full that PostgreSQL exits: it is started again once there is space', async () => {
    onTestFailed(() => console.log(server.output().slice(-4_000)));
    await disk.fill();
    // Without room for its write-ahead log it exits, and cannot recover either.
    const { url } = await startEmbedded(machine.env.CDE_DATA_DIR!);
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => {});
    await client.connect();
    const writing = (async () => {
      for (let megabyte = 0; megabyte < 150; megabyte++)
        await client.query("SELECT pg_logical_emit_message(true, 'test', repeat('x', 1000000))");
    })();
    await expect(writing).rejects.toThrow();
    await client.end().catch(() => {});
    await server.says(/the embedded PostgreSQL exited.*No space left on device.*restarting it/);
    expect(await api('GET', '/api/v1/workspaces')).toMatchObject({
      status: 503,
      body: { code: 'database-unavailable' },
    });
    await disk.free();
    await until(
      () => api('GET', '/api/v1/workspaces'),
      (reply) => reply.status === 200,
    );
    expect(await machine.cde('restart', 'hello')).toMatchObject({ code: 0 });
  });
});
