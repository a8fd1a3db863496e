import { describe, expect, test } from 'vitest';
import { makeSendWindow } from './send-window.ts';

const frame = 64 * 1024;

/**
 * A path of one bottleneck, in steps of a tenth of a millisecond: a queue without end, then a delay; the other end
 * acknowledges as pipe.ts does. Tells the rate in bytes per ms and the longest time in the queue, in ms, from `from` on.
 */
function play(
  path: { rate: (ms: number) => number; rttMs: (ms: number) => number },
  { from, to, wants = () => true }: { from: number; to: number; wants?: (ms: number) => boolean },
) {
  let ms = 0;
  const flight = makeSendWindow({ now: () => ms, maxBytes: 4 * 1024 * 1024 });
  const queue: number[] = [];
  const arriving: { at: number; end: number }[] = [];
  const answers: { at: number; position: number }[] = [];
  let [sent, arrived, told, toldAt, queued] = [0, 0, 0, 0, 0];
  let [atFrom, longest, served] = [0, 0, 0];
  for (; ms < to; ms += 0.1) {
    while (answers[0] && answers[0].at <= ms) flight.acknowledged(answers.shift()!.position);
    if (wants(ms))
      for (;;) {
        if (flight.bytes >= flight.limit) {
          flight.limited();
          break;
        }
        sent += frame;
        queue.push(sent);
        queued += frame;
        flight.sent(sent);
      }
    served = queue.length === 0 ? 0 : served + path.rate(ms) * 0.1;
    while (queue.length > 0 && served >= frame) {
      served -= frame;
      queued -= frame;
      arriving.push({ at: ms + path.rttMs(ms) / 2, end: queue.shift()! });
    }
    while (arriving[0] && arriving[0].at <= ms) arrived = arriving.shift()!.end;
    if (arrived - told >= 256 * 1024 || (arrived - told >= 32 * 1024 && ms - toldAt >= 5)) {
      [told, toldAt] = [arrived, ms];
      answers.push({ at: ms + path.rttMs(ms) / 2, position: arrived });
    }
    if (ms < from) atFrom = arrived;
    else longest = Math.max(longest, queued / path.rate(ms));
  }
  return { rate: (arrived - atFrom) / (to - from), longest, limit: flight.limit };
}

const mbit = (megabits: number) => megabits * 125;

describe('the send window', () => {
  test.each([
    [20, 40],
    [20, 1],
    [100, 5],
    [100, 80],
    [1000, 2],
    [300, 150],
  ])('%i Mbit/s, %i ms: the path is full, and little queues', (megabits, rttMs) => {
    const { rate, longest } = play(
      { rate: () => mbit(megabits), rttMs: () => rttMs },
      { from: 3_000, to: 25_000 },
    );
    // 4 MiB is the most that is kept for sending again.
    const possible = Math.min(mbit(megabits), (4 * 1024 * 1024) / rttMs);
    expect(rate).toBeGreaterThan(possible * 0.9);
    expect(longest).toBeLessThan(rttMs / 2 + (5 * frame) / mbit(megabits) + 45);
  });

  test('a path that gets slower, and fast again', () => {
    const path = { rate: (ms: number) => mbit(ms > 5_000 && ms < 15_000 ? 10 : 100), rttMs: () => 30 };
    const slow = play(path, { from: 9_000, to: 15_000 });
    expect(slow.rate).toBeGreaterThan(mbit(9));
    // Everything sent before the slowdown has been acknowledged.
    expect(slow.longest).toBeLessThan(250);
    expect(play(path, { from: 18_000, to: 25_000 }).rate).toBeGreaterThan(mbit(90));
  });

  test('a path that gets longer is filled again', () => {
    const path = { rate: () => mbit(100), rttMs: (ms: number) => (ms < 5_000 ? 10 : 100) };
    expect(play(path, { from: 30_000, to: 45_000 }).rate).toBeGreaterThan(mbit(85));
  });

  test('what is typed leaves it as it is', () => {
    const path = { rate: () => mbit(50), rttMs: () => 40 };
    const bursts = (ms: number) => ms < 5_000 || ms > 60_000;
    expect(play(path, { from: 61_000, to: 65_000, wants: bursts }).rate).toBeGreaterThan(mbit(45));
  });

  test('another path starts over', () => {
    let ms = 0;
    const flight = makeSendWindow({ now: () => ms, maxBytes: 4 * 1024 * 1024 });
    flight.sent(frame);
    flight.sent(2 * frame);
    expect(flight.bytes).toBe(2 * frame);
    flight.restart(frame);
    expect(flight.bytes).toBe(0);
    flight.sent(2 * frame);
    ms = 5;
    flight.acknowledged(2 * frame);
    expect(flight.bytes).toBe(0);
  });
});
