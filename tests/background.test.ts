import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { cloneDatabase } from './kit/database.ts';
import { type Machine, makeMachine } from './kit/machine.ts';
import { until } from './kit/until.ts';

/** The background process through which commands share sessions, with the real server, agent and OpenSSH. */
const hasSsh = (() => {
  try {
    execFileSync('sh', ['-c', 'command -v ssh'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

let machine: Machine;
beforeAll(async () => {
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  await mkdir(machine.env.HOME!, { recursive: true });
  await machine.start();
});
afterAll(() => machine?.remove());

const folder = () => join(machine.env.CDE_CONFIG_DIR!, 'run');
const show = async () => JSON.parse((await machine.cde('background', 'show', '--json')).stdout);
/** A raw connection to it after its greeting, which contains its pid. */
async function connect() {
  const [name] = (await readdir(folder())).filter((each) => each.endsWith('.sock'));
  const socket = createConnection(join(folder(), name!));
  socket.on('error', () => {});
  const [greeting] = await once(socket, 'data');
  return { socket, pid: JSON.parse(String(greeting)).cde as number };
}
const pid = async () => {
  const { socket, pid: is } = await connect();
  socket.destroy();
  return is;
};
const ssh = (...command: string[]) => machine.cde('ssh', 'hello', '--', ...command);
/** A connection that stays open until its stdin ends. */
function staying() {
  const running = machine.begin(['ssh', 'hello', '--', 'echo there; exec sleep 1000']);
  onTestFinished(() => void running.process.kill());
  return running.says('there').then(() => running);
}

describe.skipIf(!hasSsh || process.platform === 'win32')('with an OpenSSH client', () => {
  test('connections share one session of one process, which starts on demand', async () => {
    expect(await show()).toEqual({ running: false, items: [] });
    const first = await staying();
    const is = await pid();
    const second = await staying();
    expect(await ssh('echo third')).toMatchObject({ code: 0, stdout: 'third\n' });
    expect(await pid()).toBe(is);
    const { items } = await show();
    expect(items).toMatchObject([{ workspace: 'hello', streams: 2, path: { via: expect.any(String) } }]);
    // The end of one does not affect the others.
    first.process.kill('SIGTERM');
    await until(show, ({ items: [item] }) => item.streams === 1);
    expect(second.process.exitCode).toBeNull();
  });

  test('commands that start at the same time share one as well', async () => {
    await machine.cde('background', 'stop');
    const ran = await Promise.all([ssh('echo a'), ssh('echo b'), ssh('echo c')]);
    expect(ran.map(({ stdout }) => stdout)).toEqual(['a\n', 'b\n', 'c\n']);
    expect((await readdir(folder())).filter((name) => name.endsWith('.sock'))).toHaveLength(1);
    expect((await show()).items).toHaveLength(1);
  });

  test('when it is killed, its connections report it and the next command starts another', async () => {
    const running = await staying();
    const is = await pid();
    process.kill(is, 'SIGKILL');
    const ended = await running.ended;
    expect(ended.code).toBe(255);
    expect(ended.stderr).toContain('[background-ended]');
    expect(await ssh('echo again')).toMatchObject({ code: 0, stdout: 'again\n' });
    expect(await pid()).not.toBe(is);
  });

  test('a command does not wait for one that hangs', async () => {
    await ssh('true');
    const is = await pid();
    process.kill(is, 'SIGSTOP');
    onTestFinished(() => void process.kill(is, 'SIGKILL'));
    expect(await ssh('echo by itself')).toMatchObject({ code: 0, stdout: 'by itself\n' });
  });

  test('the reason why a connection ended is reported as for a session of its own', async () => {
    const ran = await ssh('kill -9 $PPID; exec sleep 30');
    expect(ran.code).toBe(255);
    expect(ran.stderr).toContain('[agent-restarted]');
    expect(await ssh('echo back')).toMatchObject({ code: 0, stdout: 'back\n' });
    await machine.cde('stop', 'hello');
    expect(await machine.cde('ssh', 'hello', '--no-start', '--', 'true')).toMatchObject({ code: 5 });
    expect(await machine.cde('ssh', 'hello', '--start', '--', 'echo started')).toMatchObject({
      code: 0,
      stdout: 'started\n',
    });
  });

  test('a client that sends garbage gets an error, and others are not affected', async () => {
    const running = await staying();
    for (const words of ['nonsense\n', '{"ask":"everything"}\n', `${'x'.repeat(100_000)}\n`, '{"ask":']) {
      const { socket } = await connect();
      let said = '';
      socket.on('data', (chunk) => {
        said += chunk;
      });
      socket.end(words);
      await once(socket, 'close');
      expect(said).toMatch(/^\{"ok":false,"error":\{"code":/);
    }
    expect(running.process.exitCode).toBeNull();
    expect(await ssh('echo fine')).toMatchObject({ stdout: 'fine\n' });
  });

  test('bytes and half-closes pass in both directions', async () => {
    const bytes = Buffer.from(Array.from({ length: 3_000_000 }, (_, index) => (index * 7919) % 251));
    const args = [new URL('../cli/cde.mjs', import.meta.url).pathname, 'ssh', 'hello', '--'];
    const ran = await machine.run(
      process.execPath,
      [...args, 'sha256sum; head -c 100000 /dev/zero | wc -c'],
      bytes,
    );
    const sum = execFileSync('sha256sum', { input: bytes, encoding: 'utf8' });
    expect(ran).toMatchObject({ code: 0, stdout: `${sum}100000\n` });
  });

  test('CDE_BACKGROUND=off uses none', async () => {
    await machine.cde('background', 'stop');
    const running = machine.begin(['ssh', 'hello', '--', 'echo alone'], { CDE_BACKGROUND: 'off' });
    expect(await running.ended).toMatchObject({ code: 0, stdout: 'alone\n' });
    expect(await show()).toEqual({ running: false, items: [] });
  });

  test('it ends with the login that opened its sessions', async () => {
    const running = await staying();
    expect((await machine.cde('logout')).code).toBe(0);
    expect((await running.ended).code).toBe(255);
    expect((await readdir(folder())).filter((name) => name.endsWith('.sock'))).toEqual([]);
  });
});
