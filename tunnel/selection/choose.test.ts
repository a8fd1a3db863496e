import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dwellMs, isBetter, makeChooser, memoryMs, retryMs, rounds } from './choose.ts';
import { isSamePath, type PathId, pathKey } from './path-id.ts';

const relay = (via: string): PathId => ({ kind: 'relay', via });
const direct = (via: string): PathId => ({ kind: 'direct-tcp', via });
const udp = (via: string): PathId => ({ kind: 'direct-udp', via });
const [a, b, c, d, u] = [relay('a'), relay('b'), direct('c'), direct('d'), udp('u')];

/** A chooser on `a`, and rounds of measurements for it. */
function onA(...others: PathId[]) {
  const chooser = makeChooser();
  let at = 0;
  const paths = [a, ...others];
  chooser.offer(paths);
  chooser.use(a, at, 'need');
  return {
    chooser,
    get at() {
      return at;
    },
    /** One round of measurements; applies the decision. */
    round(rtts: Record<string, number | null>, afterMs = 1_000) {
      at += afterMs;
      for (const [via, rtt] of Object.entries(rtts))
        chooser.sample(paths.find((path) => path.via === via)!, rtt, at);
      const decision = chooser.decide(at);
      if (decision.move !== null) chooser.use(decision.move, at, 'choice');
      return decision;
    },
  };
}

describe('comparing two paths', () => {
  it.each([
    ['relay', 100, 'relay', 90, true], // 10 ms
    ['relay', 100, 'relay', 90.1, false],
    ['relay', 1000, 'relay', 989, true],
    ['relay', 50, 'relay', 45, true], // 10 %
    ['relay', 50, 'relay', 45.1, false],
    ['relay', 2, 'relay', 1.5, false], // less than what a busy processor adds
    ['relay', 2, 'relay', 1, true],
    ['relay', 2, 'direct-tcp', 2.5, true], // direct: no slower
    ['relay', 2, 'direct-tcp', 3, false],
    ['direct-tcp', 2, 'relay', 2.5, false],
    ['relay', 40, 'direct-udp', 30, true], // 10 ms and a quarter
    ['relay', 40, 'direct-udp', 30.1, false],
    ['relay', 60, 'direct-udp', 46, false],
    ['relay', 300, 'direct-udp', 270, true], // 30 ms
    ['relay', 300, 'direct-udp', 271, false],
    ['relay', 12, 'direct-udp', 2.1, false],
    ['direct-tcp', 40, 'direct-udp', 30.1, false],
    ['direct-udp', 30, 'relay', 34.9, true], // hardly slower, and carries more
    ['direct-udp', 30, 'relay', 35, false],
    ['direct-udp', 30, 'direct-tcp', 34.9, true],
  ] as const)('%s %d ms → %s %d ms: %s', (kind, rttMs, otherKind, otherMs, expected) => {
    expect(isBetter({ kind, rttMs }, { kind: otherKind, rttMs: otherMs })).toBe(expected);
  });

  it('never moves in a cycle', () => {
    const path = fc.record({
      kind: fc.constantFrom('relay' as const, 'direct-tcp' as const, 'direct-udp' as const),
      rttMs: fc.double({ min: 0.05, max: 400, noNaN: true }),
    });
    fc.assert(
      fc.property(path, path, path, (a, b, c) => {
        expect(isBetter(a, b) && isBetter(b, a)).toBe(false);
        expect(isBetter(a, b) && isBetter(b, c) && isBetter(c, a)).toBe(false);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('the choice of a path', () => {
  it('moves once another path was better in three consecutive rounds, and then stays', () => {
    const world = onA(relay('b'));
    expect(world.round({ a: 40, b: 20 })).toMatchObject({ move: null, why: 'unproven' });
    expect(world.round({ a: 40, b: 20 })).toMatchObject({ move: null, why: 'unproven' });
    expect(world.round({ a: 40, b: 20 })).toEqual({ move: b, gainMs: 20, why: 'faster' });
    for (let i = 0; i < 100; i++) expect(world.round({ a: 40, b: 20 })).toEqual({ move: null, why: 'best' });
  });

  it('prefers a direct path that is no slower, and does not return because of noise', () => {
    const world = onA(direct('d'));
    for (let i = 1; i < rounds; i++) world.round({ a: 2, d: 2.5 });
    expect(world.round({ a: 2, d: 2.5 })).toMatchObject({ move: d, why: 'direct' });
    for (let i = 0; i < 100; i++)
      expect(world.round({ a: 2, d: 2.9 }, dwellMs)).toMatchObject({ move: null });
  });

  it('takes UDP if it is much faster, and leaves it once TCP is nearly as fast', () => {
    const world = onA(udp('u'));
    for (let i = 0; i < 10; i++) expect(world.round({ a: 20, u: 12 })).toMatchObject({ move: null });
    for (let i = 0; i < 2 * rounds; i++) world.round({ a: 80, u: 12 });
    for (let i = 0; i < 10; i++) expect(world.round({ a: 80, u: 12 }, dwellMs)).toMatchObject({ move: null });
    const back = Array.from({ length: 2 * rounds }, () => world.round({ a: 14, u: 12 }, dwellMs));
    expect(back).toContainEqual({ move: a, gainMs: -2, why: 'tcp' });
  });

  it('waits longer before each further move', () => {
    const world = onA(relay('b'));
    const moved: number[] = [];
    // Worst case: the active path degrades immediately.
    let on = 'a';
    while (world.at < memoryMs) {
      const decision = world.round({ a: on === 'a' ? 50 : 10, b: on === 'b' ? 50 : 10 });
      if (decision.move === null) continue;
      moved.push(world.at);
      on = decision.move.via;
    }
    expect(moved.length).toBeLessThanOrEqual(5);
    const waits = moved.slice(1).map((each, index) => each - moved[index]!);
    waits.forEach((wait, index) => {
      expect(wait).toBeGreaterThanOrEqual(dwellMs * 2 ** index);
    });
  });

  it('holds off a failed path, longer each time, until the network changes', () => {
    const { chooser } = onA(direct('d'));
    for (let i = 0; i < 5; i++) {
      chooser.sample(a, 20, i);
      chooser.sample(d, 1, i);
    }
    chooser.failed(d, 0);
    expect(chooser.ranking(retryMs - 1)).toEqual([a]);
    expect(chooser.ranking(retryMs)).toEqual([d, a]);
    chooser.failed(d, retryMs);
    expect(chooser.ranking(3 * retryMs - 1)).toEqual([a]);
    expect(chooser.ranking(3 * retryMs)).toEqual([d, a]);
    chooser.failed(d, 3 * retryMs);
    chooser.forget();
    expect(chooser.ranking(3 * retryMs)).toEqual([a, d]);
    expect(chooser.rtt(d)).toBeUndefined();
  });

  it('does not return to a path that was withdrawn', () => {
    const world = onA(direct('d'));
    world.chooser.offer([direct('d')]);
    expect(world.chooser.rtt(a)).toBeUndefined();
    for (let i = 1; i < rounds; i++) world.round({ a: 20, d: 1 });
    expect(world.round({ a: 20, d: 1 })).toMatchObject({ move: d });
    expect(world.chooser.ranking(world.at)).toEqual([d]);
    for (let i = 0; i < 10; i++)
      expect(world.round({ a: 1, d: 100 }, dwellMs)).toEqual({ move: null, why: 'best' });
  });

  it('ignores one slow sample, and does not move from a path without measurements', () => {
    const world = onA(relay('b'));
    for (let i = 0; i < 5; i++) world.round({ a: 20, b: 20 });
    expect(world.round({ a: 500, b: 20 })).toEqual({ move: null, why: 'best' });
    expect(makeChooser().decide(0)).toEqual({ move: null, why: 'not-measured' });
    const blind = onA(relay('b'));
    for (let i = 0; i < 5; i++) expect(blind.round({ b: 1 })).toEqual({ move: null, why: 'not-measured' });
  });
});

const candidates = [a, b, c, u];
const event = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('round' as const),
      afterMs: fc.oneof(fc.nat({ max: 5_000 }), fc.nat({ max: 60_000 })),
      rtts: fc.tuple(
        ...candidates.map(() =>
          fc.option(fc.double({ min: 0.05, max: 400, noNaN: true }), { freq: 8, nil: null }),
        ),
      ),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('broke' as const), to: fc.constantFrom(...candidates) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('offer' as const),
      some: fc.subarray(candidates, { minLength: 1 }),
    }),
  },
);

describe('for any measurements', () => {
  it('moves rarely, and only to a better path that is offered and has not just failed', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 300 }), (events) => {
        const chooser = makeChooser();
        let at = 0;
        let offered: readonly PathId[] = candidates;
        let active = a;
        const moved: number[] = [];
        const failedAt = new Map<string, number>();
        // A path that was withdrawn and offered again starts over.
        const forgetWithdrawn = () => {
          for (const key of failedAt.keys())
            if (key !== pathKey(active) && !offered.some((each) => pathKey(each) === key))
              failedAt.delete(key);
        };
        chooser.offer(offered);
        chooser.use(a, 0, 'need');
        for (const one of events) {
          if (one.do === 'offer') {
            offered = one.some;
            chooser.offer(offered);
            forgetWithdrawn();
          } else if (one.do === 'broke') {
            chooser.failed(active, at);
            failedAt.set(pathKey(active), at);
            active = one.to;
            chooser.use(active, at, 'need');
            forgetWithdrawn();
          } else {
            at += one.afterMs;
            one.rtts.forEach((rtt, index) => {
              const path = candidates[index]!;
              chooser.sample(path, rtt, at);
              if (rtt === null && path !== active) failedAt.set(pathKey(path), at);
            });
            forgetWithdrawn();
            const { move } = chooser.decide(at);
            if (move === null) continue;
            expect(move).not.toEqual(active);
            expect(offered).toContainEqual(move);
            const measured = (id: PathId) => ({ kind: id.kind, rttMs: chooser.rtt(id)! });
            expect(isBetter(measured(active), measured(move))).toBe(true);
            expect(at - (failedAt.get(pathKey(move)) ?? Number.NEGATIVE_INFINITY)).toBeGreaterThanOrEqual(
              retryMs,
            );
            expect(at - (moved.at(-1) ?? Number.NEGATIVE_INFINITY)).toBeGreaterThanOrEqual(dwellMs);
            moved.push(at);
            active = move;
            chooser.use(move, at, 'choice');
            forgetWithdrawn();
            expect(moved.filter((each) => at - each < memoryMs).length).toBeLessThanOrEqual(6);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('reaches the best path of a stable network within two moves, and stays', () => {
    const rtt = fc.double({ min: 0.05, max: 400, noNaN: true });
    fc.assert(
      fc.property(fc.tuple(rtt, rtt, rtt, rtt), (rtts) => {
        const chooser = makeChooser();
        chooser.offer(candidates);
        chooser.use(a, 0, 'need');
        let active = a;
        let moves = 0;
        for (let round = 1; round <= 400; round++) {
          rtts.forEach((each, index) => {
            chooser.sample(candidates[index]!, each, round * 1_000);
          });
          const { move } = chooser.decide(round * 1_000);
          if (move === null) continue;
          active = move;
          moves++;
          chooser.use(move, round * 1_000, 'choice');
        }
        const all = candidates.map((id, index) => ({ id, kind: id.kind, rttMs: rtts[index]! }));
        const now = all.find(({ id }) => isSamePath(id, active))!;
        for (const each of all) expect(isBetter(now, each)).toBe(false);
        // The best path as seen from the first one may itself see a better one.
        expect(moves).toBeLessThanOrEqual(2);
      }),
    );
  });

  it('does not move between relays that differ by noise', () => {
    const noise = fc.double({ min: 0, max: 0.99, noNaN: true });
    fc.assert(
      fc.property(
        fc.double({ min: 0.05, max: 400, noNaN: true }),
        fc.array(fc.tuple(noise, noise), { maxLength: 100 }),
        (base, samples) => {
          const world = onA(relay('b'));
          for (const [one, other] of samples)
            expect(world.round({ a: base + one, b: base + other }, dwellMs).move).toBeNull();
        },
      ),
    );
  });
});
