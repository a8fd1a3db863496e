import { beforeEach, expect, test } from 'vitest';
import { makeHomeWarning } from './home-warning.ts';
import { makeOpenTerminals } from './open-terminals.ts';

const gibibyte = 2 ** 30;
let shown: string[] = [];
let terminals = makeOpenTerminals();
let warning = makeHomeWarning({ openTerminals: terminals });
beforeEach(() => {
  shown = [];
  terminals = makeOpenTerminals();
  warning = makeHomeWarning({ openTerminals: terminals });
});
const open = () => terminals.add((text) => shown.push(text.replaceAll('\x07', '').trim()));
const fill = (...percents: number[]) => {
  for (const homeFullPercent of percents)
    warning.update({ homeFullPercent, homeFreeBytes: ((100 - homeFullPercent) / 100) * 10 * gibibyte });
};

test('warns when the home becomes nearly full, and again shortly before it is', () => {
  open();
  fill(50, 89.9);
  expect(shown).toEqual([]);
  fill(91, 92, 96);
  expect(shown).toEqual([
    'cde: the disk of your home is 91 % full, 921.6 MiB left. Delete what you no longer need, or ask for a larger home, before programs fail.',
  ]);
  fill(97, 99, 100);
  expect(shown).toHaveLength(2);
  expect(shown[1]).toContain('97 % full, 307.2 MiB left');
});

test('warns again only after there was room', () => {
  open();
  fill(91, 88, 91, 89, 90);
  expect(shown).toHaveLength(1);
  fill(87, 91);
  expect(shown).toHaveLength(2);
});

test('waits for a terminal', () => {
  fill(95);
  open();
  fill(95);
  open();
  fill(95);
  expect(shown).toHaveLength(1);
});

test('does not replace the warning of a stop that waits for a full-screen program', () => {
  const terminal = open();
  terminal.output(Buffer.from('\x1b[?1049h'));
  terminals.show('stops in 5 minutes');
  fill(95);
  expect(shown).toEqual([]);
  terminals.withdraw();
  terminal.output(Buffer.from('\x1b[?1049l'));
  terminals.show('stops in 4 minutes');
  expect(shown.map((line) => line.slice(0, 28))).toEqual([
    'cde: the disk of your home i',
    'stops in 4 minutes',
  ]);
});

test('says nothing if nothing is known', () => {
  open();
  warning.update({ homeFullPercent: null, homeFreeBytes: null });
  expect(shown).toEqual([]);
});
