import type { LogLine } from '@cde/api/workspaces.ts';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { addFetched, addLive, emptyLog, type Log, logText, plainText } from './log.ts';

const line = (seq: number): LogLine => ({
  seq,
  at: '2026-01-02T03:04:05.678Z',
  stage: 'startup',
  source: 'startup',
  level: 'info',
  text: `line ${seq}`,
});
const lines = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => line(from + at));
const numbers = (log: Log) => log.chunks.flat().map(({ seq }) => seq);

test('appends new lines and drops known ones', () => {
  let log = addFetched(emptyLog, lines(1, 3));
  log = addFetched(log, lines(2, 5));
  const { log: next, gap } = addLive(log, lines(4, 6));
  expect(numbers(next)).toEqual([1, 2, 3, 4, 5, 6]);
  expect(gap).toBe(false);
});

test('keeps early lines until those before them are fetched', () => {
  const early = addLive(addFetched(emptyLog, lines(1, 2)), lines(5, 6));
  expect(early.gap).toBe(true);
  expect(numbers(early.log)).toEqual([1, 2]);
  expect(numbers(addFetched(early.log, lines(3, 4)))).toEqual([1, 2, 3, 4, 5, 6]);
});

test('full chunks stay the same objects', () => {
  const before = addFetched(emptyLog, lines(1, 450));
  const after = addLive(before, [line(451)]).log;
  expect(after.chunks.slice(0, 2)).toEqual(before.chunks.slice(0, 2));
  expect(after.chunks[0]).toBe(before.chunks[0]);
  expect(after.chunks[1]).toBe(before.chunks[1]);
  expect(addLive(after, [line(9)]).log).toBe(after);
});

test('for any order of events and pages, the log ends up complete and in order', () => {
  const events = fc.array(
    fc.record({
      live: fc.boolean(),
      from: fc.integer({ min: 1, max: 60 }),
      count: fc.integer({ min: 1, max: 20 }),
    }),
  );
  fc.assert(
    fc.property(events, (steps) => {
      let log: Log = emptyLog;
      for (const { live, from, count } of steps)
        log = live
          ? addLive(log, lines(from, from + count)).log
          : // The server replies with what follows the last known line.
            addFetched(log, lines(log.last + 1, log.last + count));
      expect(numbers(log)).toEqual(Array.from({ length: log.last }, (_, at) => at + 1));
      const end = Math.max(log.last, ...log.early.map(({ seq }) => seq));
      if (end > log.last) log = addFetched(log, lines(log.last + 1, end));
      expect(numbers(log)).toEqual(Array.from({ length: end }, (_, at) => at + 1));
      expect(log.early).toEqual([]);
    }),
  );
});

test('shows text as a terminal does', () => {
  expect(plainText('\u001b[1;32mok\u001b[0m done')).toBe('ok done');
  expect(plainText(' 10%\r 55%\r100%\r')).toBe('100%');
  expect(plainText('\u001b]0;title\u0007\u001b[2Kx\u0008\u0000y\tz')).toBe('xy\tz');
  expect(plainText('a\u202egnp.exe \u2066b\u009bc\u2028d')).toBe('agnp.exe bcd');
});

test('copies with times and stages', () => {
  expect(logText(addFetched(emptyLog, lines(1, 2)))).toBe(
    '2026-01-02T03:04:05.678Z startup   line 1\n2026-01-02T03:04:05.678Z startup   line 2',
  );
});
