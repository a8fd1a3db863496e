import { spawn, spawnSync } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { asksForShell } from './person.ts';

test.each([
  'web.cde',
  '-v web.cde',
  '-A -L 8080:localhost:80 web.cde',
  '-L8080:localhost:80 web.cde',
  '-o ForwardAgent=yes web.cde',
  '-vD 1080 web.cde -v',
  '-t web.cde tmux attach',
  '-- web.cde',
])('ssh %s is a person’s', (line) => {
  expect(asksForShell(line.split(' '))).toBe(true);
});

test.each([
  '',
  'web.cde true',
  // VS Code
  '-v -T -D 51234 web.cde',
  '-T -D 51234 -o ConnectTimeout=15 web.cde bash',
  '-o BatchMode=yes web.cde',
  '-oBatchMode=yes web.cde',
  '-o RequestTTY=no web.cde',
  // git, rsync, scp, sftp, jumps, autossh
  'web.cde git-upload-pack project',
  '-x -oForwardAgent=no -oPermitLocalCommand=no -oClearAllForwardings=yes -s -- web.cde sftp',
  '-W db:5432 web.cde',
  '-fN web.cde',
  '-vN web.cde',
  '-L 80:x:80 web.cde -N',
])('ssh %s is not', (line) => {
  expect(asksForShell(line.split(' ').filter(Boolean))).toBe(false);
});

describe.skipIf(spawnSync('script', ['--version']).status !== 0)('a question on the terminal', () => {
  /** What a program writes to its terminal that asks and then runs `rest`. */
  async function ask(rest: string, answer?: string): Promise<string> {
    const program = `
      import { askOnTerminal } from '${new URL('./person.ts', import.meta.url)}';
      const controller = new AbortController();
      const asked = askOnTerminal('Start it?', controller.signal);
      ${rest}
      const hasTimer = process.getActiveResourcesInfo().includes('Timeout');
      process.stdout.write(JSON.stringify({ answer: await asked, hasTimer }));`;
    const line = `"$NODE" --input-type=module -e "$PROGRAM"`;
    const child = spawn('script', ['-qefc', line, '/dev/null'], {
      env: { ...process.env, NODE: process.execPath, PROGRAM: program },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    if (answer !== undefined)
      child.stdout.on('data', (chunk: Buffer) => {
        if (chunk.includes('[Y/n]')) child.stdin.write(`${answer}\n`);
      });
    const shown = await text(child.stdout);
    child.stdin.end();
    return shown;
  }

  test('ends at once when it is cancelled', async () => {
    expect(await ask('controller.abort(); await asked;')).toBe(
      'Start it? [Y/n] \r\n{"answer":false,"hasTimer":false}',
    );
  });

  test('writes nothing after the answer', async () => {
    expect(await ask('await asked; controller.abort();', 'y')).toBe(
      'Start it? [Y/n] y\r\n{"answer":true,"hasTimer":false}',
    );
  });
});
