import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Candidate, dwellMs, isBetter, makeChooser, memoryMs, retryMs, rounds } from './choose.ts';

const relay = (id: string): Candidate => ({ id, kind: 'relay' });
const direct = (id: string): Candidate => ({ id, kind: 'direct-tcp' });
const udp = (id: string): Candidate => ({ id, kind: 'direct-udp' });

/** A chooser on `a`, and rounds of measurements for it. */
function onA(...others: Candidate[]) {
  const chooser = makeChooser();
  let at = 0;
  chooser.offer([relay('a'), ...others]);
  chooser.use('a', at, 'need');
  return {
    chooser,
    get at() {
      return at;
    },
    /** One round; obeys the decision. */
    round(rtts: Record<string, number | null>, afterMs = 1_000) {
      at += afterMs;
      for (const [id, rtt] of Object.entries(rtts)) chooser.sample(id, rtt, at);
      const decision = chooser.decide(at);
      if (decision.move !== null) chooser.use(decision.move, at, 'choice');
      return decision;
    },
  };
}

describe('what is better', () => {
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

  it('never leads around in a circle', () => {
    const way = fc.record({
      kind: fc.constantFrom('relay' as const, 'direct-tcp' as const, 'direct-udp' as const),
      rttMs: fc.double({ min: 0.05, max: 400, noNaN: true }),
    });
    fc.assert(
      fc.property(way, way, way, (a, b, c) => {
        expect(isBetter(a, b) && isBetter(b, a)).toBe(false);
        expect(isBetter(a, b) && isBetter(b, c) && isBetter(c, a)).toBe(false);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('the choice of a path', () => {
  it('moves once another was better in three rounds running, and then stays', () => {
    const world = onA(relay('b'));
    expect(world.round({ a: 40, b: 20 })).toMatchObject({ move: null, why: 'unproven' });
    expect(world.round({ a: 40, b: 20 })).toMatchObject({ move: null, why: 'unproven' });
    expect(world.round({ a: 40, b: 20 })).toEqual({ move: 'b', gainMs: 20, why: 'faster' });
    for (let i = 0; i < 100; i++) expect(world.round({ a: 40, b: 20 })).toEqual({ move: null, why: 'best' });
  });

  it('prefers direct where it is no slower, and does not come back for noise', () => {
    const world = onA(direct('d'));
    for (let i = 1; i < rounds; i++) world.round({ a: 2, d: 2.5 });
    expect(world.round({ a: 2, d: 2.5 })).toMatchObject({ move: 'd', why: 'direct' });
    for (let i = 0; i < 100; i++)
      expect(world.round({ a: 2, d: 2.9 }, dwellMs)).toMatchObject({ move: null });
  });

  it('takes UDP where that is much nearer, and leaves it where TCP comes near to it', () => {
    const world = onA(udp('u'));
    for (let i = 0; i < 10; i++) expect(world.round({ a: 20, u: 12 })).toMatchObject({ move: null });
    for (let i = 0; i < 2 * rounds; i++) world.round({ a: 80, u: 12 });
    for (let i = 0; i < 10; i++) expect(world.round({ a: 80, u: 12 }, dwellMs)).toMatchObject({ move: null });
    const back = Array.from({ length: 2 * rounds }, () => world.round({ a: 14, u: 12 }, dwellMs));
    expect(back).toContainEqual({ move: 'a', gainMs: -2, why: 'tcp' });
  });

  it('waits longer before each further move', () => {
    const world = onA(relay('b'));
    const moved: number[] = [];
    // Whichever it is on gets worse at once: the worst that can be.
    let on = 'a';
    while (world.at < memoryMs) {
      const decision = world.round({ a: on === 'a' ? 50 : 10, b: on === 'b' ? 50 : 10 });
      if (decision.move === null) continue;
      moved.push(world.at);
      on = decision.move;
    }
    expect(moved.length).toBeLessThanOrEqual(5);
    const waits = moved.slice(1).map((each, index) => each - moved[index]!);
    waits.forEach((wait, index) => {
      expect(wait).toBeGreaterThanOrEqual(dwellMs * 2 ** index);
    });
  });

  it('leaves what failed alone, longer each time, and forgets that on another network', () => {
    const { chooser } = onA(direct('d'));
    for (let i = 0; i < 5; i++) {
      chooser.sample('a', 20, i);
      chooser.sample('d', 1, i);
    }
    chooser.failed('d', 0);
    expect(chooser.ranking(retryMs - 1)).toEqual(['a']);
    expect(chooser.ranking(retryMs)).toEqual(['d', 'a']);
    chooser.failed('d', retryMs);
    expect(chooser.ranking(3 * retryMs - 1)).toEqual(['a']);
    expect(chooser.ranking(3 * retryMs)).toEqual(['d', 'a']);
    chooser.failed('d', 3 * retryMs);
    chooser.forget();
    expect(chooser.ranking(3 * retryMs)).toEqual(['a', 'd']);
    expect(chooser.rtt('d')).toBeUndefined();
  });

  it('does not come back to what is offered no more', () => {
    const world = onA(direct('d'));
    world.chooser.offer([direct('d')]);
    expect(world.chooser.rtt('a')).toBeUndefined();
    for (let i = 1; i < rounds; i++) world.round({ a: 20, d: 1 });
    expect(world.round({ a: 20, d: 1 })).toMatchObject({ move: 'd' });
    expect(world.chooser.ranking(world.at)).toEqual(['d']);
    for (let i = 0; i < 10; i++)
      expect(world.round({ a: 1, d: 100 }, dwellMs)).toEqual({ move: null, why: 'best' });
  });

  it('is not moved by one sample that got stuck, nor by what it knows nothing of', () => {
    const world = onA(relay('b'));
    for (let i = 0; i < 5; i++) world.round({ a: 20, b: 20 });
    expect(world.round({ a: 500, b: 20 })).toEqual({ move: null, why: 'best' });
    expect(makeChooser().decide(0)).toEqual({ move: null, why: 'not-measured' });
    const blind = onA(relay('b'));
    for (let i = 0; i < 5; i++) expect(blind.round({ b: 1 })).toEqual({ move: null, why: 'not-measured' });
  });
});

const ids = ['a', 'b', 'c', 'd'] as const;
const candidates = [relay('a'), relay('b'), direct('c'), udp('d')];
const event = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('round' as const),
      afterMs: fc.oneof(fc.nat({ max: 5_000 }), fc.nat({ max: 60_000 })),
      rtts: fc.tuple(
        ...ids.map(() => fc.option(fc.double({ min: 0.05, max: 400, noNaN: true }), { freq: 8, nil: null })),
      ),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('broke' as const), to: fc.constantFrom(...ids) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('offer' as const),
      some: fc.subarray(candidates, { minLength: 1 }),
    }),
  },
);

describe('whatever is measured', () => {
  it('moves only to what is offered, has not just failed and is better; rarely; never twice at once', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 300 }), (events) => {
        const chooser = makeChooser();
        let at = 0;
        let offered: readonly Candidate[] = candidates;
        let active: string = 'a';
        const moved: number[] = [];
        const failedAt = new Map<string, number>();
        // What was withdrawn and is offered again begins anew.
        const forgetWithdrawn = () => {
          for (const id of failedAt.keys())
            if (id !== active && !offered.some((each) => each.id === id)) failedAt.delete(id);
        };
        chooser.offer(offered);
        chooser.use('a', 0, 'need');
        for (const one of events) {
          if (one.do === 'offer') {
            offered = one.some;
            chooser.offer(offered);
            forgetWithdrawn();
          } else if (one.do === 'broke') {
            chooser.failed(active, at);
            failedAt.set(active, at);
            active = one.to;
            chooser.use(active, at, 'need');
            forgetWithdrawn();
          } else {
            at += one.afterMs;
            one.rtts.forEach((rtt, index) => {
              chooser.sample(ids[index]!, rtt, at);
              if (rtt === null && ids[index] !== active) failedAt.set(ids[index]!, at);
            });
            forgetWithdrawn();
            const { move } = chooser.decide(at);
            if (move === null) continue;
            expect(move).not.toBe(active);
            expect(offered.map(({ id }) => id)).toContain(move);
            const way = (id: string) => ({
              kind: candidates.find((each) => each.id === id)!.kind,
              rttMs: chooser.rtt(id)!,
            });
            expect(isBetter(way(active), way(move))).toBe(true);
            expect(at - (failedAt.get(move) ?? Number.NEGATIVE_INFINITY)).toBeGreaterThanOrEqual(retryMs);
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

  it('comes to the best path in three rounds where nothing changes, by one move, and stays', () => {
    const rtt = fc.double({ min: 0.05, max: 400, noNaN: true });
    fc.assert(
      fc.property(fc.tuple(rtt, rtt, rtt, rtt), (rtts) => {
        const chooser = makeChooser();
        chooser.offer(candidates);
        chooser.use('a', 0, 'need');
        let active = 'a';
        let moves = 0;
        for (let round = 1; round <= 400; round++) {
          rtts.forEach((each, index) => {
            chooser.sample(ids[index]!, each, round * 1_000);
          });
          const { move } = chooser.decide(round * 1_000);
          if (move === null) continue;
          active = move;
          moves++;
          chooser.use(move, round * 1_000, 'choice');
        }
        const ways = candidates.map(({ id, kind }, index) => ({ id, kind, rttMs: rtts[index]! }));
        const now = ways.find(({ id }) => id === active)!;
        for (const each of ways) expect(isBetter(now, each)).toBe(false);
        // What is best in the eyes of where it began may have a better in its own.
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
