import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cloneDatabase } from './kit/database.ts';
import { type Machine, makeMachine } from './kit/machine.ts';

/** The paths of sessions, by the real programs: server, agents, ssh. */
const starter = fileURLToPath(new URL('../templates/local', import.meta.url));
let machine: Machine;
beforeAll(async () => {
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  await mkdir(machine.env.HOME!, { recursive: true });
  await machine.start();
});
afterAll(() => machine.remove());

const run = (...args: string[]) => machine.cde('ssh', 'hello', ...args, '--', 'echo $((6 * 7))');

test('cde ssh takes the path that is wanted, and says so', async () => {
  const direct = await run('-v', '--path', 'direct-tcp');
  expect(direct).toMatchObject({ code: 0, stdout: '42\n' });
  expect(direct.stderr).toMatch(/cde: path opened: relay http:/);
  expect(direct.stderr).toMatch(/cde: path moved: direct-tcp [\d.]+:\d+: direct-tcp was requested/);
  const udp = await run('-v', '--path', 'direct-udp');
  expect(udp).toMatchObject({ code: 0, stdout: '42\n' });
  expect(udp.stderr).toMatch(/cde: path moved: direct-udp [\d.]+:\d+: direct-udp was requested/);
  const relay = await run('-v', '--path', 'relay');
  expect(relay).toMatchObject({ code: 0, stdout: '42\n' });
  expect(relay.stderr).not.toContain('path moved');
});

test('a session moves to the direct path by itself while it is used', async () => {
  const waiting = 'until [ -e ~/moved ]; do sleep 0.1; done; echo over';
  const ssh = machine.begin(['ssh', 'hello', '-v', '--', waiting]);
  await ssh.says(/path moved: direct-(tcp|udp) \S+:\d+/);
  expect(await machine.cde('ssh', 'hello', '--', 'touch ~/moved')).toMatchObject({ code: 0 });
  expect((await ssh.ended).stdout).toBe('over\n');
});

test('a template may forbid it: the server says so, before anything is tried', async () => {
  const folder = join(machine.folder, 'relays-only');
  await cp(starter, folder, { recursive: true });
  const file = join(folder, 'template.yaml');
  const text = await readFile(file, 'utf8');
  await writeFile(
    file,
    `${text.replace(/^name: .*$/m, 'name: relays-only')}\nconnection:\n  paths: [relay]\n`,
  );
  expect(await machine.cde('template', 'push', folder)).toMatchObject({ code: 0 });
  expect(await machine.cde('create', 'far', '--template', 'relays-only')).toMatchObject({ code: 0 });
  const auto = await machine.cde('ssh', 'far', '-v', '--', 'sleep 1; echo done');
  expect(auto).toMatchObject({ code: 0, stdout: 'done\n' });
  expect(auto.stderr).not.toContain('direct-tcp');
  const wanted = await machine.cde('port-forward', 'far', '0:80', '--path', 'direct-tcp');
  expect(wanted.code).toBe(4);
  expect(wanted.stderr).toContain(
    'Paths of the kind direct-tcp are forbidden for owner/far. [path-forbidden]',
  );
  expect(wanted.stderr).toContain('Allowed: relay.');
});

test('config-ssh keeps the wanted path for every program', async () => {
  const config = join(machine.env.HOME!, '.ssh/config');
  await machine.cde('config-ssh', '--path', 'direct-tcp');
  const hosts = await readFile(join(machine.env.HOME!, '.ssh/cde/config'), 'utf8');
  expect(hosts).toMatch(/ssh --stdio --path=direct-tcp '%n'/);
  const ran = await machine.run('ssh', ['-F', config, 'hello.cde', 'echo there']);
  expect(ran).toMatchObject({ code: 0, stdout: 'there\n' });
  await machine.cde('config-ssh', '--path', 'auto');
  expect(await readFile(join(machine.env.HOME!, '.ssh/cde/config'), 'utf8')).not.toContain('--path');
});
