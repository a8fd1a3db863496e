import { readFile, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../tests/kit/free-port.ts';
import { type Fixture, has, makeFixture, until } from './fixture.ts';
import { openPty, type Pty } from './jobs/pty.ts';

describe.skipIf(!has('ssh'))('activity of sessions over OpenSSH (needs ssh)', () => {
  let fixture: Fixture;
  const ptys: Pty[] = [];
  beforeEach(async () => {
    fixture = await makeFixture();
    for (const profile of ['.bash_profile', '.profile', '.zprofile'])
      await writeFile(join(fixture.home, profile), "PS1='ready> '\n");
  });
  afterEach(async () => {
    for (const pty of ptys.splice(0)) {
      pty.close();
      await pty.exited;
    }
    await fixture.close();
  });

  /** Everything that is recorded from now on, in order and without repetitions. */
  function record(): string[] {
    const heard: string[] = [];
    fixture.activity.observe((signal) => {
      const { by } = fixture.activity.report().signals.find((one) => one.signal === signal)!;
      if (heard.at(-1) !== `${signal} ${by}`) heard.push(`${signal} ${by}`);
    });
    return heard;
  }
  const signals = () => fixture.activity.report().signals.map(({ signal, by }) => `${signal} ${by}`);

  /** The real ssh in a terminal. */
  function open(...args: string[]) {
    const pty = openPty({
      file: '/bin/sh',
      args: ['-c', 'exec ssh "$@"', 'sh', '-F', fixture.config, ...args],
      environment: { ...process.env, TERM: 'xterm', HOME: fixture.folder } as Record<string, string>,
      folder: fixture.folder,
      columns: 80,
      rows: 24,
    });
    ptys.push(pty);
    let text = '';
    pty.output.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    pty.output.on('error', () => {});
    return {
      pty,
      type: (typed: string) => pty.write(Buffer.from(typed), () => {}),
      shows: (what: string) => until(() => text.includes(what), what),
    };
  }

  test('typing in a shell is terminal input; the shell itself, its size and replies of the terminal are not', async () => {
    const { type, shows, pty } = open('ws');
    await shows('ready> ');
    pty.resize(100, 30);
    // Whatever the terminal sent before these has arrived when the program has read them.
    type('\x1b[?62;22c\x1b[12;40R\x1b[I');
    await shows('40R');
    expect(signals()).toEqual([]);
    type('\x03');
    await until(() => signals().length > 0, 'a signal');
    expect(signals()).toEqual(['terminal-input ada']);
  });

  test('a terminal that outlives its client reports who typed', async () => {
    const { type, shows } = open('-o', 'SetEnv CDE_TERMINAL=main', 'ws');
    await shows('ready> ');
    expect(signals()).toEqual([]);
    type('echo t""yped\r');
    await shows('typed');
    expect(signals()).toEqual(['terminal-input ada']);
  });

  test('what a command prints is output of that command; silence is not', async () => {
    const heard = record();
    fixture.start(['ws', 'echo $$ > pid; exec sleep 600']);
    await until(() => readFile(join(fixture.home, 'pid')).catch(() => null), 'the command');
    fixture.pass(3600_000);
    await fixture.ssh(['ws', 'CC=gcc exec /usr/bin/env printf compiled']);
    expect(heard).toEqual(['command-output env']);
  });

  test('a command in a terminal prints too, but what a full-screen program draws does not count', async () => {
    const heard = record();
    const { shows, type } = open(
      '-t',
      'ws',
      "tput() { printf '\\033[?1049hd'; printf rawn; exec sleep 600; }; tput",
    );
    await shows('drawn');
    // A signal that follows what was drawn, so that all of it has been judged.
    type('x');
    await until(() => heard.length > 0, 'the key');
    expect(heard).toEqual(['terminal-input ada']);
    const building = open('-t', 'ws', 'make() { echo building; sleep 600; }; make');
    await building.shows('building');
    expect(heard).toEqual(['terminal-input ada', 'command-output command']);
  });

  test('answers of a command to its input do not count as work', async () => {
    const { stdout } = await fixture.ssh(['ws', 'read line; echo "got $line"'], 'a line\n');
    expect(stdout.toString()).toBe('got a line\n');
    expect(signals().filter((signal) => signal.startsWith('command-output'))).toEqual([]);
  });

  test('an editor’s connection to a forwarded port that only keeps alive is not input; what a person sends is', async () => {
    let received = 0;
    const editor = createServer((socket) => {
      socket.on('data', (chunk) => {
        received += chunk.length;
      });
      socket.on('error', () => {});
    });
    await new Promise<void>((resolve) => editor.listen(0, '127.0.0.1', resolve));
    const { port } = editor.address() as AddressInfo;
    const local = await freePort();
    fixture.start(['-N', '-L', `127.0.0.1:${local}:127.0.0.1:${port}`, 'ws']);
    const socket = await until(async () => {
      const opened = connect(local, '127.0.0.1');
      const isOpen = new Promise<boolean>((resolve) => {
        opened.once('connect', () => resolve(true));
        opened.once('error', () => resolve(false));
      });
      return (await isOpen) ? opened : null;
    }, 'the forward');
    const send = async (bytes: number) => {
      const expected = received + bytes;
      socket.write(Buffer.alloc(bytes, 'x'));
      await until(() => received === expected, 'the bytes');
    };
    for (let beat = 0; beat < 60; beat += 1) {
      await send(13);
      fixture.pass(5000);
    }
    expect(signals()).toEqual([]);
    for (let key = 0; key < 5; key += 1) await send(160);
    expect(signals()).toEqual(['editor-input ada']);
    socket.destroy();
    editor.close();
  });

  test.skipIf(!has('sftp'))('a file transfer is a sync, a listing is not (needs sftp)', async () => {
    await writeFile(join(fixture.home, 'there'), 'content');
    const sftp = (commands: string) =>
      fixture.run('sftp', ['-F', fixture.config, '-b', '-', 'ws'], { input: commands });
    expect((await sftp('ls -l\n')).code).toBe(0);
    expect(signals()).toEqual([]);
    expect((await sftp('get there here\n')).code).toBe(0);
    expect(signals()).toEqual(['sync ada']);
  });

  test.skipIf(!has('rsync'))('so is one by rsync (needs rsync)', async () => {
    await writeFile(join(fixture.home, 'there'), 'content');
    const shell = `ssh -F ${fixture.config}`;
    expect((await fixture.run('rsync', ['-e', shell, 'ws:there', 'here'])).code).toBe(0);
    expect(signals()).toEqual(['sync rsync']);
  });

  test('a warning appears in every open terminal', async () => {
    const plain = open('ws');
    const persistent = open('-o', 'SetEnv CDE_TERMINAL=main', 'ws');
    for (const { shows } of [plain, persistent]) await shows('ready> ');
    fixture.openTerminals.show('stops soon');
    for (const { shows } of [plain, persistent]) await shows('\x07stops soon\r\n');
    expect(signals()).toEqual([]);
  });
});
