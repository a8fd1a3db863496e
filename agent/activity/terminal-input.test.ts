import { expect, test } from 'vitest';
import { makeTypedFilter } from './terminal-input.ts';

const isTyped = (...chunks: string[]) => {
  const filter = makeTypedFilter();
  return chunks.map((chunk) => filter(Buffer.from(chunk, 'latin1')));
};

test.each([
  ['a letter', 'a'],
  ['return', '\r'],
  ['escape', '\x1b'],
  ['an arrow key', '\x1b[A'],
  ['an application arrow key', '\x1bOA'],
  ['F5', '\x1b[15~'],
  ['Alt and a letter', '\x1bf'],
  ['Ctrl-C', '\x03'],
  ['a bracketed paste', '\x1b[200~make\x1b[201~'],
  ['a key in the kitty protocol', '\x1b[97;5u'],
  ['a click', '\x1b[<0;10;20M'],
  ['a click in the encoding of X10', '\x1b[M !!'],
  ['a drag', '\x1b[<32;10;20M'],
  ['the wheel', '\x1b[<64;10;20M'],
  ['a letter beside a reply', '\x1b[12;40Ra'],
])('%s is typed', (_, text) => {
  expect(isTyped(text)).toEqual([true]);
});

test.each([
  ['a cursor position report', '\x1b[12;40R'],
  ['an extended cursor position report', '\x1b[?12;40;1R'],
  ['primary device attributes', '\x1b[?62;22c'],
  ['secondary device attributes', '\x1b[>41;354;0c'],
  ['a status report', '\x1b[0n'],
  ['the colour scheme', '\x1b[?997;1n'],
  ['a mode report', '\x1b[?2026;2$y'],
  ['a window size report', '\x1b[8;24;80t'],
  ['keyboard flags', '\x1b[?1u'],
  ['focus gained', '\x1b[I'],
  ['focus lost', '\x1b[O'],
  ['mouse movement without a button', '\x1b[<35;10;20M'],
  ['mouse movement without a button, with Shift', '\x1b[<39;10;20M'],
  ['mouse movement in the encoding of X10', '\x1b[MC!!'],
  ['mouse movement in the encoding of urxvt', '\x1b[67;10;20M'],
  ['a colour reply that BEL ends', '\x1b]11;rgb:0000/0000/0000\x07'],
  ['a colour reply that ST ends', '\x1b]4;1;rgb:cd/00/00\x1b\\'],
  ['a DCS reply', '\x1bP>|XTerm(370)\x1b\\'],
  ['several at once', '\x1b[?62;22c\x1b[12;40R\x1b]10;rgb:ff/ff/ff\x1b\\'],
])('%s is not', (_, text) => {
  expect(isTyped(text)).toEqual([false]);
});

test('a reply in two pieces is not typed, and what follows it is', () => {
  expect(isTyped('\x1b[12', ';40R', 'q')).toEqual([false, false, true]);
  expect(isTyped('\x1b]11;rgb:00/00/00\x1b', '\\')).toEqual([false, false]);
});
