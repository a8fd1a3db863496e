import { describe, expect, test } from 'vitest';
import { endOptions, findCommand, takeGlobalOptions } from './command-line.ts';
import { commands } from './commands.ts';

const ssh = findCommand(commands, ['ssh'])!.command;

describe('cde ssh reads options up to the remote command, as ssh does', () => {
  test.each([
    ['web', 'web'],
    ['web ls -la', 'web -- ls -la'],
    ['web git --help', 'web -- git --help'],
    ['web env --json', 'web -- env --json'],
    ['-v web ls -v', '-v web -- ls -v'],
    ['web -L 80:x:80 -N', 'web -L 80:x:80 -N'],
    ['web -L 80:x:80 ls -L', 'web -L 80:x:80 -- ls -L'],
    ['-tL80:x:80 web top -d 1', '-tL80:x:80 web -- top -d 1'],
    ['-tL 80:x:80 web top -d 1', '-tL 80:x:80 web -- top -d 1'],
    ['--path relay web ls --path x', '--path relay web -- ls --path x'],
    ['--path=relay web ls', '--path=relay web -- ls'],
    ['--server work web ls', '--server work web -- ls'],
    ['web -- ls -la', 'web -- ls -la'],
    ['web ls -- -la', 'web -- ls -- -la'],
    ['-o A=b -o C=d web -t vi', '-o A=b -o C=d web -t -- vi'],
  ])('%s', (line, expected) => {
    expect(endOptions(ssh, line.split(' ')).join(' ')).toBe(expected);
  });

  test('other commands are left as they are', () => {
    const { command } = findCommand(commands, ['delete'])!;
    expect(endOptions(command, ['web', 'api', '--yes'])).toEqual(['web', 'api', '--yes']);
  });
});

describe('global options before the command', () => {
  test.each([
    ['--json list', { json: true }, 'list'],
    ['--server work list -a', { json: false, server: 'work' }, 'list -a'],
    ['--server=work --json list', { json: true, server: 'work' }, 'list'],
    ['--url http://x list', { json: false, server: 'http://x' }, 'list'],
    ['list --json', { json: false }, 'list --json'],
    ['--help', { json: false }, '--help'],
  ])('%s', (line, globals, rest) => {
    expect(takeGlobalOptions(line.split(' '))).toEqual({ globals, rest: rest.split(' ') });
  });

  test('one without its value is a usage error', () => {
    for (const words of [['--server'], ['--server', '--json', 'list'], ['--server=', 'list']])
      expect(() => takeGlobalOptions(words)).toThrow('--server needs a value');
  });
});
