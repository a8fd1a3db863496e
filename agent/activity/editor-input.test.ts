import { expect, test } from 'vitest';
import { makeInputClassifier } from './editor-input.ts';

const minute = 60_000;

/** A client whose traffic is played with injected time. `at` in ms since it connected. */
function client({ isCommand = false } = {}) {
  let now = 0;
  const hits: number[] = [];
  const classifier = makeInputClassifier({ isCommand, onInput: () => hits.push(now), now: () => now });
  // A fixed sequence of jitters instead of a random one.
  let seed = 7;
  const random = () => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return seed / 2 ** 31;
  };
  const events: { at: number; up?: number }[] = [];
  const add = (at: number, up?: number) => void events.push({ at, ...(up !== undefined && { up }) });
  return {
    random,
    /** Upstream with `bytes`, or downstream without. */
    add,
    /** What code-server's window sends while nobody touches it, as recorded. */
    idle(from: number, to: number) {
      for (let at = from; at < to; at += 5000) {
        const jitter = random() * 120;
        for (const [after, up] of [
          [0, 21],
          [20],
          [30, 21],
          [45],
          [60, 21],
          [75],
          [80, 27],
          [95],
          [100, 24],
          [110],
          [250 + jitter, 24],
          [260 + jitter],
          [2300, 13],
          [2900, 11],
          [3000],
          [3080],
          [3190, 10],
        ] as [number, number?][])
          add(at + jitter + after, up);
      }
    },
    keys(from: number, to: number, everyMs: number) {
      for (let at = from; at < to; at += everyMs * (0.4 + 1.2 * random())) {
        for (const [after, up] of [[0, 82], [1, 24], [15], [20, 43], [30], [45, 25], [60]] as [
          number,
          number?,
        ][])
          add(at + after, up);
      }
    },
    /** Files change: events arrive, and the window answers. */
    chatter(from: number, to: number) {
      for (let at = from; at < to; at += 300 + 1500 * random()) {
        add(at);
        for (const [after, up] of [[11, 28], [18], [90, 25], [95], [110, 21], [115]] as [number, number?][])
          add(at + after, up);
      }
    },
    /** The minutes in which there was input. */
    play() {
      for (const { at, up } of events.sort((one, other) => one.at - other.at)) {
        now = at;
        if (up === undefined) classifier.downstream();
        else classifier.upstream(up);
      }
      return [...new Set(hits.map((at) => Math.floor(at / minute)))];
    },
  };
}

test('VS Code that is merely attached: never, for a whole day', () => {
  const { idle, play } = client();
  idle(0, 24 * 60 * minute);
  expect(play()).toEqual([]);
});

test('typing in VS Code', () => {
  const { idle, keys, play } = client();
  idle(0, 20 * minute);
  keys(10 * minute, 11 * minute, 300);
  // The last minute counts until it is over.
  expect(play()).toEqual([10, 11]);
});

test('a key every six seconds', () => {
  const { idle, keys, play } = client();
  idle(0, 20 * minute);
  keys(10 * minute, 15 * minute, 6000);
  expect(play()).toEqual([10, 11, 12, 13, 14, 15]);
});

test('a person who types from the beginning, without a pause', () => {
  const { idle, keys, play } = client();
  idle(0, 60 * minute);
  keys(0, 60 * minute, 250);
  expect(play().slice(-58)).toHaveLength(58);
});

test.each([
  ['without a pause in between', 1],
  ['each in three requests', 3],
])('a page that polls every 3 s, %s: 20 KB and more a minute', (_, requests) => {
  const { add, random, play } = client();
  for (let at = 0; at < 8 * 60 * minute; at += 3000) {
    const jitter = random() * 100;
    for (let request = 0; request < requests; request += 1) {
      add(at + jitter + request * 60, 1000);
      add(at + jitter + request * 60 + 50);
    }
  }
  // Nothing is known of the first minutes yet.
  expect(play().filter((found) => found > 3)).toEqual([]);
});

test('what a file watcher reports, and the window’s answers', () => {
  const { idle, chatter, play } = client();
  idle(0, 60 * minute);
  chatter(20 * minute, 40 * minute);
  expect(play()).toEqual([]);
});

test('typing while files change, with the answers of a language server', () => {
  const { idle, chatter, keys, add, play } = client();
  idle(0, 60 * minute);
  chatter(20 * minute, 40 * minute);
  keys(30 * minute, 33 * minute, 400);
  for (let at = 30 * minute; at < 33 * minute; at += 250) add(at);
  expect(play()).toEqual([30, 31, 32, 33]);
});

test('a reconnect: what a client sends to restore its session', () => {
  const { idle, add, play } = client();
  for (let at = 0; at < 20_000; at += 200) add(at, 400);
  idle(0, 30 * minute);
  expect(play()).toEqual([]);
});

test.each([
  [10, 64],
  [30, 150],
  [60, 200],
])('keep-alives every %d s, with jitter (JetBrains, databases)', (seconds, bytes) => {
  const { add, random, play } = client();
  for (let at = 0; at < 8 * 60 * minute; at += seconds * 1000) add(at + random() * 500, bytes);
  // Nothing is known of the first minutes yet.
  expect(play().filter((found) => found > 3)).toEqual([]);
});

test('a laptop that sleeps and wakes', () => {
  const { idle, play } = client();
  idle(0, 60 * minute);
  idle(180 * minute, 300 * minute);
  expect(play().filter((found) => found < 180 || found > 212)).toEqual([]);
});

test('queries typed over a connection without heartbeats', () => {
  const { add, play } = client();
  for (const at of [5, 9, 17]) {
    add(at * minute, 140);
    add(at * minute + 20);
  }
  expect(play()).toEqual([5, 9, 17]);
});

test('lines typed to a command without a terminal, but not the pings of an editor’s helper (Zed)', () => {
  const typed = client({ isCommand: true });
  typed.add(5 * minute, 3);
  expect(typed.play()).toEqual([5]);

  const pings = client({ isCommand: true });
  for (let at = 0; at < 8 * 60 * minute; at += 5000) {
    pings.add(at + pings.random() * 100, 12);
    pings.add(at + 110);
  }
  expect(pings.play()).toEqual([]);
});
