import { expect, test } from 'vitest';
import { type Case, causes, makeCases } from '../bench/attribution/cases.ts';
import { judge, type Played, score, shuffled } from '../bench/attribution/score.ts';

// How bench/attribution chooses its cases and counts. What it measures is in bench/attribution.md.

/** As if the engine had named each cause two seconds after the fault. */
function playedRight(one: Case): Played {
  const from = 1_000_000;
  const to = from + 10_000;
  const incident = (cause: string) => ({
    ...{
      seenAt: to + 2_000,
      from,
      to,
      kind: 'drop',
      cause,
      segment: 'unknown',
      confidence: 0.9,
      summary: '',
    },
  });
  const named = one.faults.map(({ fault }) => incident(fault.cause));
  return {
    case: one,
    injected: one.faults.map(({ fault }) => ({ cause: fault.cause, from, to })),
    ...{ begunAt: from - 60_000, readyAt: from, endedAt: to + 20_000 },
    ...{ sightings: named, finals: named, evidence: [], echo: { beforeMs: 0, duringMs: 0 } },
  };
}
const cases = makeCases(7, { each: 10 });
const judgeAll = (all: Played[], rename?: (cause: string) => string) =>
  score(
    7,
    all.map((played) => judge(played, rename)),
  );

test('a seed always gives the same cases: ten of each cause, with all variations', () => {
  expect(makeCases(7, { each: 10 })).toEqual(cases);
  expect(makeCases(8, { each: 10 })).not.toEqual(cases);
  for (const cause of causes) expect(cases.filter(({ title }) => title === cause)).toHaveLength(10);
  expect(new Set(cases.map(({ variation }) => variation))).toEqual(
    new Set(['plain', 'bulk', 'cpu load', 'at start', 'two faults']),
  );
  const [cause] = causes;
  const byId = (all: Case[]) =>
    all.filter(({ title }) => title === cause).sort((one, other) => (one.id < other.id ? -1 : 1));
  expect(byId(makeCases(7, { each: 10, only: [cause!] }))).toEqual(byId(cases));
});

test('the right causes score 1, and the same ones shuffled near chance', () => {
  const played = cases.map(playedRight);
  expect(judgeAll(played)).toMatchObject({
    ...{ seed: 7, cases: cases.length, segmentAccuracy: 1, causeAccuracy: 1, falseBlame: 0 },
    p95SecondsToName: 2,
  });
  const chance = judgeAll(played, shuffled(7));
  expect(chance.causeAccuracy).toBeLessThan(0.15);
  expect(chance.segmentAccuracy).toBeLessThan(0.5);
});

test('a wrong cause is false blame only with high confidence, also if it is corrected later', () => {
  const right = playedRight(
    cases.find(({ title, faults }) => title === 'client-slept' && faults.length === 1)!,
  );
  const blaming = (confidence: number) => ({
    ...right,
    sightings: [{ ...right.sightings[0]!, cause: 'node-lost', confidence }, ...right.sightings],
  });
  expect(judge(blaming(0.7)).falseBlame).toEqual([]);
  expect(judge(blaming(0.85)).falseBlame).toHaveLength(1);
  expect(judge({ ...right, finals: [] })).toMatchObject({ named: 'none', isCauseRight: false });
});
