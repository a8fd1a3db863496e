import { existsSync, readFileSync } from 'node:fs';
import { readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { alive, type Fixture, has, makeFixture, until } from './fixture.ts';
import { sttyArguments } from './jobs/command.ts';
import { openPty, type Pty } from './jobs/pty.ts';

/** A terminal of the developer's machine with the real ssh in it. */
interface Screen {
  pty: Pty;
  text(): string;
  type(text: string): void;
  shows(what: string | RegExp): Promise<unknown>;
}

describe.skipIf(!has('ssh'))('terminals over OpenSSH (needs ssh)', () => {
  let fixture: Fixture;
  const screens: Screen[] = [];
  beforeAll(async () => {
    fixture = await makeFixture();
    // The login shell of the user who runs the test: bash, dash or zsh.
    for (const profile of ['.bash_profile', '.profile', '.zprofile'])
      await writeFile(join(fixture.home, profile), "PS1='ready> '; PROMPTED=yes\n");
  });
  afterEach(async () => {
    for (const { pty } of screens.splice(0)) {
      pty.close();
      try {
        process.kill(pty.pid, 'SIGKILL');
      } catch {}
      await pty.exited;
    }
  });
  afterAll(() => fixture.close());

  function open(args: string[], before = ':'): Screen {
    const pty = openPty({
      file: '/bin/sh',
      args: ['-c', `${before}; exec ssh "$@"`, 'sh', '-F', fixture.config, ...args],
      environment: { PATH: process.env.PATH!, HOME: fixture.folder, TERM: 'xterm-256color' },
      folder: fixture.folder,
      columns: 101,
      rows: 37,
    });
    let text = '';
    pty.output.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    pty.output.on('error', () => {});
    const screen: Screen = {
      pty,
      text: () => text,
      type: (line) => pty.write(Buffer.from(line), () => {}),
      shows: (what) =>
        until(() => (typeof what === 'string' ? text.includes(what) : what.test(text)), `${what} in ${text}`),
    };
    screens.push(screen);
    return screen;
  }

  test('a login shell with the size and type of the terminal, its echo and its exit code', async () => {
    const screen = open(['ws']);
    await screen.shows('ready> ');
    screen.type('echo "$PROMPTED $TERM $(stty size) $(test "$SSH_TTY" = "$(tty)" && echo same) $PWD"\r');
    await screen.shows(`yes xterm-256color 37 101 same ${fixture.home}\r\n`);
    expect(fixture.sessions.list().map(({ kind }) => kind)).toEqual(['shell']);
    screen.type('exit 42\r');
    expect(await screen.pty.exited).toEqual({ code: 42, signal: 0 });
    await until(() => fixture.sessions.list().length === 0, 'no session');
  });

  test('a change of the window arrives as SIGWINCH with the new size', async () => {
    const screen = open([
      '-t',
      'ws',
      'trap "stty size; exit 4" WINCH; echo up; while :; do sleep 0.02; done',
    ]);
    await screen.shows('up');
    screen.pty.resize(66, 22);
    expect(await screen.pty.exited).toEqual({ code: 4, signal: 0 });
    await screen.shows('22 66');
  });

  test('control characters act on the program in front', async () => {
    const screen = open(['ws']);
    await screen.shows('ready> ');
    screen.type("sh -c 'echo $$ > sleep.pid; exec sleep 1000'\r");
    await pidFrom('sleep.pid');
    screen.type('\x03');
    await screen.shows(/\^C[\s\S]*ready> /);
    screen.type('cat; echo "cat ended: $?"\r');
    await screen.shows('ended: $?"\r\n');
    screen.type('line\r\x04');
    await screen.shows('line\r\nline\r\ncat ended: 0');
    screen.type('\x04');
    expect((await screen.pty.exited).code).toBe(0);
  });

  test("the client's terminal modes are applied", async () => {
    const screen = open(['-t', 'ws', 'stty -a'], 'stty -ixany erase ^H -echoctl');
    // That the program has ended does not mean that all it wrote was read.
    for (const mode of [/-ixany/, /-echoctl/, /erase = \^H;/, /intr = \^C;/]) await screen.shows(mode);
    // A terminal that stands so already needs no stty.
    expect(
      sttyArguments(
        new Map([
          [53, 1],
          [3, 127],
        ]),
      ),
    ).toEqual([]);
  });

  test('a command with a terminal: exact exit code, no lost tail', async () => {
    const result = await fixture.ssh(['-tt', 'ws', 'seq 1 200000; echo the end; exit 5']);
    expect(result.code).toBe(5);
    const lines = result.stdout.toString().split('\r\n');
    expect(lines.length).toBe(200002);
    expect(lines.at(-2)).toBe('the end');
    expect(lines[199999]).toBe('200000');
    expect((await fixture.ssh(['-tt', 'ws', 'kill -TERM $$'])).code).toBe(255);
  });

  test('a paste larger than the terminal takes neither blocks the agent nor gets lost', async () => {
    // Raw, and slow to read: the terminal's buffer is full most of the time.
    const screen = open([
      'ws',
      '-tt',
      'stty raw -echo; echo up; sleep 0.3; head -c 300000 | md5sum; stty sane; exit 3',
    ]);
    await screen.shows('up');
    screen.type('0123456789'.repeat(30_000));
    expect((await fixture.ssh(['ws', 'echo others go on'])).stdout.toString()).toBe('others go on\n');
    expect((await screen.pty.exited).code).toBe(3);
    const { stdout } = await fixture.run('md5sum', [], { input: '0123456789'.repeat(30_000) });
    await screen.shows(stdout.toString().slice(0, 32));
  });

  test('closing the client hangs up the shell and what runs in it; tmux and nohup live on', async () => {
    const screen = open(['ws']);
    await screen.shows('ready> ');
    screen.type("nohup sh -c 'echo $$ > n.pid; exec sleep 311' >/dev/null 2>&1 &\r");
    screen.type("sh -c 'echo $$ > f.pid; exec sleep 312'\r");
    const [detached, inFront] = await Promise.all(['n.pid', 'f.pid'].map(pidFrom));
    process.kill(screen.pty.pid, 'SIGKILL');
    await until(() => !alive(inFront!), 'the program in front has ended');
    expect(alive(detached!)).toBe(true);
    process.kill(detached!, 'SIGKILL');
    await until(() => fixture.sessions.list().length === 0, 'no session');
  });

  test.skipIf(!has('tmux'))('a tmux session outlives its client (needs tmux)', async () => {
    const screen = open([
      '-t',
      'ws',
      'tmux -L cde-test -f /dev/null new-session "echo in tmux; exec sleep 313"',
    ]);
    await screen.shows('in tmux');
    process.kill(screen.pty.pid, 'SIGKILL');
    await until(() => fixture.sessions.list().length === 0, 'no session');
    const listed = await fixture.ssh(['ws', 'tmux -L cde-test list-sessions; tmux -L cde-test kill-server']);
    expect(listed.stdout.toString()).toMatch(/1 windows/);
  });

  test.skipIf(!existsSync('/proc'))('a session inherits no terminal of another (needs /proc)', async () => {
    const other = open(['ws']);
    await other.shows('ready> ');
    for (const args of [
      ['ws', 'sleep 314 & echo $! > leak.pid; wait'],
      ['-tt', 'ws', 'echo $$ > leak.pid; exec sleep 314'],
    ]) {
      await writeFile(join(fixture.home, 'leak.pid'), '');
      const child = fixture.start(args);
      const pid = await pidFrom('leak.pid');
      const targets = await Promise.all(
        Array.from({ length: 64 }, (_, descriptor) =>
          readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => ''),
        ),
      );
      expect(targets.filter((target) => target.endsWith('ptmx'))).toEqual([]);
      child.kill('SIGKILL');
      await until(() => !alive(pid), 'hung up');
    }
  });

  async function pidFrom(name: string): Promise<number> {
    const path = join(fixture.home, name);
    return until(() => {
      const pid = existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0;
      return pid > 1 && pid;
    }, `${name} written`);
  }
});
