import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { type Fixture, has, makeFixture, until } from './fixture.ts';
import { openPty } from './jobs/pty.ts';
import { makeScreen } from './jobs/screen.ts';

describe.skipIf(!has('ssh'))('terminals that stay (needs ssh)', () => {
  let fixture: Fixture;
  beforeAll(async () => {
    fixture = await makeFixture();
    for (const profile of ['.bash_profile', '.profile', '.zprofile'])
      await writeFile(join(fixture.home, profile), "PS1='ready> '\n");
  });
  afterAll(() => fixture.close());

  /** The real ssh in a terminal of the test's own, which shows what a person would see. */
  function open(name: string, columns = 100, rows = 30) {
    const pty = openPty({
      file: '/usr/bin/env',
      args: ['ssh', '-tt', '-F', fixture.config, '-o', `SetEnv=CDE_TERMINAL=${name}`, 'ws'],
      environment: { PATH: process.env.PATH!, HOME: fixture.folder, TERM: 'xterm-256color' },
      folder: fixture.folder,
      columns,
      rows,
    });
    const screen = makeScreen(columns, rows);
    let tail = '';
    pty.output.on('data', (chunk: Buffer) => {
      tail = (tail + chunk).slice(-2000);
      screen.write(chunk, () => {});
    });
    pty.output.on('error', () => {});
    const end = async () => {
      pty.close();
      try {
        process.kill(pty.pid, 'SIGKILL');
      } catch {}
      await pty.exited;
    };
    onTestFinished(end);
    return {
      pty,
      end,
      /** The last that came, for when much comes: what it makes of the screen costs more to ask for. */
      tail: () => tail,
      text: () => screen.snapshot(),
      type: (line: string) => pty.write(Buffer.from(line), () => {}),
      shows: (what: string) =>
        until(() => screen.snapshot().includes(what), `${what} in ${screen.snapshot()}`),
    };
  }

  test('the shell and what it showed are found again', async () => {
    const first = open('again');
    await first.shows('ready> ');
    first.type('kept=yes; for i in $(seq 1 300); do echo "line $i"; done\n');
    await first.shows('line 300');
    await first.end();
    await until(() => fixture.sessions.list().length === 0, 'the client is gone');
    const second = open('again', 90, 20);
    await second.shows('line 1\r\n');
    await second.shows('line 300');
    second.type('echo $kept-$((6 * 7)); stty size\n');
    await second.shows('yes-42');
    await second.shows('20 90');
    second.type('exit 3\n');
    expect((await second.pty.exited).code).toBe(3);
    // The next of that name is new.
    const third = open('again');
    await third.shows('ready> ');
    expect(third.text()).not.toContain('line 300');
    third.type('exit\n');
    await third.pty.exited;
  });

  test('a full-screen program is there as it was', async () => {
    const first = open('screen');
    await first.shows('ready> ');
    first.type("printf '\\033[?1049h\\033[2J\\033[5;10Hin the middle\\033[?1h'; cat\n");
    await first.shows('in the middle');
    await first.end();
    const second = open('screen');
    await second.shows('in the middle');
    expect(second.text()).toContain('\x1b[?1049h');
  });

  test('several see the same, in the size that fits all, and each can type', async () => {
    const one = open('shared', 120, 40);
    await one.shows('ready> ');
    const two = open('shared', 80, 24);
    await two.shows('ready> ');
    one.type('echo from-$((1 + 1)); stty size\n');
    await Promise.all([one.shows('from-2'), two.shows('from-2'), one.shows('24 80')]);
    two.type('echo back-$((2 + 2))\n');
    await Promise.all([one.shows('back-4'), two.shows('back-4')]);
    // Who does not read falls behind alone, and finds the end of it when they read again.
    two.pty.output.pause();
    one.type('seq 1 400000; echo over-$((3 + 3))\n');
    await until(() => one.tail().includes('over-6'), 'all of it');
    two.pty.output.resume();
    await until(() => two.tail().includes('over-6'), 'the end of it');
    await two.end();
    await until(() => fixture.sessions.list().length === 1, 'the other is gone');
    one.type('stty size; exit\n');
    await one.pty.exited;
    await one.shows('40 120');
  });
});
