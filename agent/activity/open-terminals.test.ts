import { expect, test } from 'vitest';
import { makeOpenTerminals } from './open-terminals.ts';

const turn = () => new Promise((resolve) => setImmediate(resolve));

function open() {
  const terminals = makeOpenTerminals();
  const shown: string[] = [];
  const terminal = terminals.add((text) => shown.push(text));
  return { terminals, terminal, shown, output: (text: string) => terminal.output(Buffer.from(text)) };
}

test('a line is shown at once, with a bell', () => {
  const { terminals, shown, output } = open();
  output('$ ');
  terminals.show('stops soon');
  expect(shown).toEqual(['\r\n\x07stops soon\r\n']);
});

test.each([
  ['a control sequence', 'red \x1b[3', '1mtext'],
  ['an escape', '\x1b', '[0m'],
  ['a character set', '\x1b(', 'B'],
  ['a title', '\x1b]0;a ti', 'tle\x07$ '],
  ['a title that ST ends', '\x1b]0;a title\x1b', '\\$ '],
  ['a character of three bytes', Buffer.from('€').subarray(0, 2), Buffer.from('€').subarray(2)],
])('never within %s', async (_, first, second) => {
  const { terminals, terminal, shown } = open();
  terminal.output(Buffer.from(first));
  terminals.show('stops soon');
  expect(shown).toEqual([]);
  terminal.output(Buffer.from(second));
  await turn();
  expect(shown).toHaveLength(1);
});

test.each([
  '\x1b[?1049h',
  '\x1b[?47h',
  '\x1b[?1;1047h',
])('after a full-screen program (%j)', async (enter) => {
  const { terminals, terminal, shown, output } = open();
  output(`vim${enter.slice(0, 3)}`);
  output(`${enter.slice(3)}\x1b[2J text`);
  expect(terminal.isFullScreen).toBe(true);
  terminals.show('stops in 15 minutes');
  terminals.show('stops in 5 minutes');
  output('\x1b[?25h more');
  await turn();
  expect(shown).toEqual([]);
  output(`\x1b[2J${enter.replace('h', 'l')}$ `);
  await turn();
  expect(shown).toEqual(['\r\n\x07stops in 5 minutes\r\n']);
});

test('what is withdrawn is not shown, and a closed terminal gets nothing', async () => {
  const { terminals, terminal, shown, output } = open();
  output('\x1b[?1049h');
  terminals.show('stops soon');
  terminals.withdraw();
  output('\x1b[?1049l');
  await turn();
  terminal.close();
  terminals.show('stops soon');
  expect(shown).toEqual([]);
});
