import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { freePort } from '../../tests/kit/free-port.ts';
import { makeTestHome, portClosed, startServer, type TestHome } from '../testing/cli.ts';

let home: TestHome;
beforeEach(async () => {
  home = await makeTestHome();
});
afterEach(() => home.remove());

/** Without an ssh client, the shell is skipped. */
const hasSsh = spawnSync('ssh', ['-V']).status === 0;
/** Each start of a server takes seconds while other tests share the machine. */
const severalStarts = { timeout: 120_000 };

test(
  'the first start leads to a shell; killing cde ends the server; the next start finds everything',
  severalStarts,
  async () => {
    const first = await startServer(home);
    const said = first.running.stdout();
    expect(said).toMatch(new RegExp(`${first.url}/sign-in#code=\\S+`));
    for (const command of ['npx cde ssh hello', 'npx cde create web --template local', 'npx cde list'])
      expect(said).toContain(command);
    const file = join(home.path, '.config', 'cde', 'config.json');
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await home.json(['list'])).toMatchObject([{ name: 'hello', status: 'running' }]);
    if (hasSsh)
      expect(await home.run(['ssh', 'hello', '--', 'echo kept > ~/note; exit 5'])).toMatchObject({ code: 5 });
    // After the first start its one-time code is deleted.
    await expect(stat(join(home.path, 'data', 'first-start.json'))).rejects.toThrow('ENOENT');

    first.running.child.kill('SIGKILL');
    await portClosed(first.port);

    const second = await startServer(home, { port: first.port });
    expect(second.running.stdout()).toContain('hello (running)');
    expect(second.running.stdout()).not.toContain('#code=');
    expect(second.running.stdout()).toContain('npx cde server sign-in-link');
    // Every line of the log has each key once.
    const lines = `${said}${second.running.stdout()}`.split('\n').filter((line) => line.startsWith('{'));
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) expect(JSON.stringify(JSON.parse(line))).toBe(line);
    if (hasSsh)
      expect(await home.run(['ssh', 'hello', '--', 'cat note'])).toMatchObject({ code: 0, stdout: 'kept\n' });
    expect(await home.json(['template', 'versions', 'local'])).toHaveLength(1);
    await second.close();
    expect((await second.running.ended).code).toBe(0);
  },
);

test(
  'after a kill at any step of the first start, the next start completes it and repeats nothing',
  severalStarts,
  async () => {
    const port = await freePort();
    const start = () =>
      home.start(['server', 'start', '--listen', `127.0.0.1:${port}`], {
        env: { CDE_DATA_DIR: join(home.path, 'data'), CDE_DOCKER: 'off' },
      });
    for (const step of ['Publishing the template', 'Creating the workspace', 'Starting hello']) {
      const running = start();
      // A step that was completed before the kill is not reported again.
      await Promise.race([running.says(step), running.says('Ctrl-C stops')]);
      running.child.kill('SIGKILL');
      await portClosed(port);
    }
    const last = await startServer(home, { port });
    expect(await home.json(['template', 'versions', 'local'])).toHaveLength(1);
    expect(await home.json(['list'])).toMatchObject([{ name: 'hello', status: 'running' }]);
    expect(await home.json(['builds', 'hello'])).toHaveLength(1);
    const config = JSON.parse(await readFile(join(home.path, '.config', 'cde', 'config.json'), 'utf8'));
    expect(Object.values(config.servers)).toMatchObject([{ source: 'first-start' }]);
    expect(JSON.stringify(config)).not.toContain('unfinished');
    await last.close();
  },
);

test('the message and exit code of a server that does not start are passed on', async () => {
  expect(await home.run(['server', 'start', '--listen', 'nowhere'])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('write HOST:PORT'),
  });
});

test('a sign-in link needs the database of the server', async () => {
  const empty = join(home.path, 'empty');
  const ran = await home.run(['server', 'sign-in-link'], { env: { CDE_DATA_DIR: empty } });
  expect(ran).toMatchObject({
    code: 1,
    stdout: '',
    stderr: expect.stringContaining(`no database in ${empty}`),
  });
  expect(existsSync(empty)).toBe(false);
});

test('a port that is in use is reported', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  const { port } = taken.address() as { port: number };
  const ran = await home.run(['server', 'start', '--listen', `127.0.0.1:${port}`], {
    env: { CDE_DATA_DIR: join(home.path, 'data'), CDE_DOCKER: 'off' },
  });
  taken.close();
  expect(ran.code).toBe(1);
  expect(ran.stderr).toContain('is in use');
});
