import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { sshCiphers } from '@cde/tunnel/streams/ssh2.ts';
import ssh2 from 'ssh2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { alive, type Fixture, has, makeFixture, until } from './fixture.ts';

const md5 = (data: Buffer) => createHash('md5').update(data).digest('hex');

describe.skipIf(!has('ssh'))('commands over OpenSSH (needs ssh)', () => {
  let fixture: Fixture;
  beforeAll(async () => {
    fixture = await makeFixture();
  });
  afterAll(() => fixture.close());

  /** The pid that a command in the workspace has written to a file in the home. */
  async function pidFrom(name: string): Promise<number> {
    const path = join(fixture.home, name);
    return until(() => {
      const pid = existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0;
      return pid > 1 && pid;
    }, `${name} written`);
  }

  test('stdout, stderr and the exit code are those of the command', async () => {
    const result = await fixture.ssh(['ws', 'echo out; echo err >&2; exit 7']);
    expect(result).toEqual({ code: 7, stdout: Buffer.from('out\n'), stderr: 'err\n' });
    expect((await fixture.ssh(['ws', 'true'])).code).toBe(0);
    expect((await fixture.ssh(['ws', 'exit 255'])).code).toBe(255);
    expect((await fixture.ssh(['ws', 'no-such-command'])).code).toBe(127);
  });

  test('stdout and stderr can be opened by name, as with sshd', async () => {
    const result = await fixture.ssh(
      ['ws', 'echo one >/dev/stdout; echo two >/dev/stderr; bash /dev/stdin'],
      'echo three',
    );
    expect(result).toMatchObject({ code: 0, stderr: 'two\n' });
    expect(result.stdout.toString()).toBe('one\nthree\n');
  });

  test('the environment is that of a login in the home, with what the client and the manifest add', async () => {
    const result = await fixture.ssh(
      [
        '-o',
        'SendEnv=LANG LC_* GIT_* EDITOR',
        '-o',
        'SetEnv=MINE="two words" PATH=/evil HOME=/evil LD_PRELOAD=/evil.so',
        'ws',
        'pwd; env',
      ],
      null,
      { LANG: 'de_DE.UTF-8', LC_ALL: 'C.UTF-8', GIT_AUTHOR_NAME: 'A B', EDITOR: 'ed' },
    );
    const [folder, ...lines] = result.stdout.toString().split('\n');
    expect(folder).toBe(fixture.home);
    const environment = Object.fromEntries(lines.map((line) => line.split(/=(.*)/s).slice(0, 2)));
    expect(environment).toMatchObject({
      HOME: fixture.home,
      USER: 'dev',
      LOGNAME: 'dev',
      LANG: 'de_DE.UTF-8',
      LC_ALL: 'C.UTF-8',
      GIT_AUTHOR_NAME: 'A B',
      EDITOR: 'ed',
      MINE: 'two words',
      FROM_MANIFEST: 'yes',
      CDE_WORKSPACE: 'dev/hello',
    });
    expect(environment.SHELL).toMatch(/^\//);
    expect(environment.SSH_CONNECTION).toMatch(/^\S+ \d+ \S+ \d+$/);
    expect(environment.PATH).not.toBe('/evil');
    expect(environment).not.toHaveProperty('LD_PRELOAD');
    expect(environment).not.toHaveProperty('SSH_TTY');
    expect(environment).not.toHaveProperty('SSH_AUTH_SOCK');
  });

  test('a signal that ends the command is reported by its name', async () => {
    const connection = await client();
    const ends: unknown[] = [];
    for (const name of ['KILL', 'TERM', 'SEGV', 'BUS']) {
      const channel = await exec(connection, `kill -${name} $$`);
      channel.resume();
      const [code, signal] = (await once(channel, 'exit')) as [number | null, string];
      ends.push([code, signal]);
    }
    // BUS has no name in SSH: the shells' 128 + number stands for it.
    expect(ends).toEqual([
      [null, 'SIGKILL'],
      [null, 'SIGTERM'],
      [null, 'SIGSEGV'],
      [135, undefined],
    ]);
    connection.end();
    expect((await fixture.ssh(['ws', 'kill -9 $$'])).code).toBe(255);
  });

  test("a client's signals reach the command, after the end of its input too", async () => {
    const connection = await client();
    const channel = await exec(
      connection,
      'trap "echo got usr1; exit 3" USR1; echo ready; while :; do sleep 0.05; done',
    );
    // ssh2's client offers signals only before the end of its input; the protocol knows no such rule.
    const { _protocol: protocol } = connection as unknown as {
      _protocol: { channelEOF(id: number): void; signal(id: number, name: string): void };
    };
    const { id } = (channel as unknown as { outgoing: { id: number } }).outgoing;
    protocol.channelEOF(id);
    let output = '';
    channel.on('data', (chunk: Buffer) => {
      output += chunk;
      if (output === 'ready\n') protocol.signal(id, 'USR1');
    });
    const [code] = await once(channel, 'exit');
    expect([code, output]).toEqual([3, 'ready\ngot usr1\n']);
    connection.end();
  });

  test('the end of stdin reaches the command, and its answer the client', async () => {
    const result = await fixture.ssh(['ws', 'cat; echo done; exit 4'], 'abc\n');
    expect(result.stdout.toString()).toBe('abc\ndone\n');
    expect(result.code).toBe(4);
    expect((await fixture.ssh(['-n', 'ws', 'cat | wc -c'])).stdout.toString().trim()).toBe('0');
  });

  test('a command that does not read its stdin ends all the same', async () => {
    const result = await fixture.ssh(['ws', 'exec <&-; echo ignored; exit 2'], randomBytes(8_000_000));
    expect(result).toMatchObject({ code: 2, stdout: Buffer.from('ignored\n') });
  });

  test('50 MB arrive byte for byte, both ways at once', async () => {
    const data = randomBytes(50_000_000);
    const result = await fixture.ssh(['ws', 'tee copy'], data);
    expect(result.code).toBe(0);
    expect(md5(result.stdout)).toBe(md5(data));
    expect(md5(await readFile(join(fixture.home, 'copy')))).toBe(md5(data));
  });

  test('much output on stdout and stderr at once is complete on both', async () => {
    const result = await fixture.ssh([
      'ws',
      'seq 1 700000 & seq 700001 1400000 >&2 & wait; echo the end; echo the end >&2; exit 9',
    ]);
    const lines = (from: number, to: number) =>
      `${Array.from({ length: to - from + 1 }, (_, index) => from + index).join('\n')}\nthe end\n`;
    expect(result.code).toBe(9);
    expect(result.stdout.toString() === lines(1, 700000)).toBe(true);
    expect(result.stderr === lines(700001, 1400000)).toBe(true);
  });

  test.each([...sshCiphers])('keys are changed on the way with %s', async (cipher) => {
    const data = randomBytes(5_000_000);
    // For the ciphers that do not authenticate by themselves, one MAC of each kind.
    const mac = cipher === 'aes256-ctr' ? 'hmac-sha2-512' : 'hmac-sha2-256-etm@openssh.com';
    const result = await fixture.ssh(
      ['-v', '-c', cipher, '-m', mac, '-o', 'RekeyLimit=1M', 'ws', 'cat'],
      data,
      { LANG: 'C' },
    );
    expect(md5(result.stdout)).toBe(md5(data));
    expect(result.stderr).toContain(`server->client cipher: ${cipher}`);
    expect(result.stderr.match(/SSH2_MSG_NEWKEYS received/g)!.length).toBeGreaterThan(3);
  });

  test('compression works, keys are changed on the way', async () => {
    const data = randomBytes(20_000_000);
    const result = await fixture.ssh(['-C', '-o', 'RekeyLimit=2M', 'ws', 'cat'], data);
    expect(md5(result.stdout)).toBe(md5(data));
  });

  test('many sessions over one connection, each with its own exit code', async () => {
    const control = join(fixture.folder, 'control');
    const master = fixture.start(['-M', '-N', '-S', control, 'ws']);
    await until(() => existsSync(control), 'the master is up');
    const results = await Promise.all(
      Array.from({ length: 30 }, (_, index) =>
        fixture.ssh(['-S', control, 'ws', `seq 1 5000 | tail -1; exit ${index}`]),
      ),
    );
    expect(results.map(({ code }) => code)).toEqual(Array.from({ length: 30 }, (_, index) => index));
    expect(new Set(results.map(({ stdout }) => stdout.toString()))).toEqual(new Set(['5000\n']));
    master.kill('SIGTERM');
    await once(master, 'close');
  });

  test('a slow client holds the command back instead of growing the agent', async () => {
    await writeFile(join(fixture.home, 'large'), randomBytes(100_000_000));
    globalThis.gc?.();
    const before = process.memoryUsage().rss;
    const child = fixture.start(['ws', 'cat large; echo finished > cat-done']);
    child.stdin.end();
    await once(child.stdout, 'readable');
    // The windows of SSH, socket and pipes fill within this; the command then stands still.
    let size = -1;
    await until(() => {
      const last = size;
      size = process.memoryUsage().rss;
      return Math.abs(size - last) < 1_000_000 && fixture.sessions.list().length > 0;
    }, 'memory to settle');
    expect(existsSync(join(fixture.home, 'cat-done'))).toBe(false);
    expect(size - before).toBeLessThan(60_000_000);
    const hash = createHash('md5');
    let length = 0;
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
      hash.update(chunk);
      length += chunk.length;
    }
    expect(length).toBe(100_000_000);
    expect(hash.digest('hex')).toBe(md5(await readFile(join(fixture.home, 'large'))));
  });

  test('a script on the stdin of bash, as VS Code starts its server', async () => {
    const child = fixture.start(['-T', 'ws', 'bash']);
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk;
    });
    child.stdin.write(
      'echo "running in $PWD"\n( setsid sleep 300 >/dev/null 2>&1 & echo $! > server.pid )\n',
    );
    child.stdin.write('echo started\n');
    await until(() => output.includes('started'), 'the script has run');
    expect(output).toBe(`running in ${fixture.home}\nstarted\n`);
    const server = await pidFrom('server.pid');
    child.kill('SIGKILL');
    await once(child, 'close');
    await until(() => fixture.sessions.list().length === 0, 'the session has ended');
    expect(alive(server)).toBe(true);
    process.kill(server, 'SIGKILL');
  });

  test('what a command leaves in the background lives on after it', async () => {
    const result = await fixture.ssh(['ws', 'sleep 300 >/dev/null 2>&1 & echo $! > left.pid']);
    expect(result.code).toBe(0);
    const pid = await pidFrom('left.pid');
    expect(alive(pid)).toBe(true);
    process.kill(pid, 'SIGKILL');
  });

  test('a client that disconnects hangs up its command and its children, but not detached processes', async () => {
    const command = (name: string, seconds: number) => `sh -c 'echo $$ > ${name}.pid; exec sleep ${seconds}'`;
    const child = fixture.start([
      'ws',
      `nohup ${command('nohup', 301)} >/dev/null 2>&1 & setsid ${command('setsid', 302)} & ` +
        `${command('child', 303)} & echo $$ > shell.pid; wait`,
    ]);
    const [nohup, setsid, inGroup, shell] = (await Promise.all(
      ['nohup.pid', 'setsid.pid', 'child.pid', 'shell.pid'].map(pidFrom),
    )) as [number, number, number, number];
    try {
      child.kill('SIGKILL');
      await until(() => !alive(shell) && !alive(inGroup), 'the command has ended');
      expect([alive(nohup), alive(setsid)]).toEqual([true, true]);
    } finally {
      for (const pid of [nohup, setsid]) process.kill(pid, 'SIGKILL');
    }
  });

  test('the end of the agent hangs up all that runs, and ends the connections', async () => {
    const other = await makeFixture();
    const child = other.start(['ws', 'echo $$ > hup.pid; exec sleep 304']);
    const path = join(other.home, 'hup.pid');
    const pid = await until(() => {
      const written = existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0;
      return written > 1 && written;
    }, 'it runs');
    other.server.close();
    expect(await once(child, 'close')).toEqual([255, null]);
    await until(() => !alive(pid), 'hung up');
    await other.close();
  });

  test('a broken client does not disturb the others', async () => {
    const garbage = connect(fixture.socket);
    garbage.on('error', () => {});
    garbage.write('GET / HTTP/1.1\r\n\r\n');
    garbage.write(randomBytes(100_000));
    const silent = connect(fixture.socket);
    expect((await fixture.ssh(['ws', 'echo fine'])).stdout.toString()).toBe('fine\n');
    garbage.destroy();
    silent.destroy();
  });

  test('keep-alives are answered, and X11 is refused without ending the session', async () => {
    const child = fixture.start(['-o', 'ServerAliveInterval=1', '-o', 'ServerAliveCountMax=1', 'ws', 'cat']);
    const started = Date.now();
    const tick = setInterval(() => child.stdin.write('x'), 5000);
    await until(() => Date.now() - started > 2600, 'two intervals to pass');
    clearInterval(tick);
    expect(child.exitCode).toBeNull();
    child.stdin.end();
    await once(child, 'close');
    const result = await fixture.ssh(['-X', 'ws', 'echo no $DISPLAY'], null, { DISPLAY: ':99' });
    expect(result.stdout.toString()).toBe('no\n');
  });

  async function client(): Promise<ssh2.Client> {
    const connection = new ssh2.Client();
    connection.connect({ sock: connect(fixture.socket), username: 'dev' });
    await once(connection, 'ready');
    return connection;
  }

  function exec(connection: ssh2.Client, command: string): Promise<ssh2.ClientChannel> {
    return new Promise((resolve, reject) => {
      connection.exec(command, (error, channel) => (error ? reject(error) : resolve(channel)));
    });
  }
});
