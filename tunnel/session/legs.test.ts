import { expect, test } from 'vitest';
import { makePathPair } from '../paths/pair.ts';
import { makeLegMeter } from './legs.ts';

test('an agent measures its leg once for all requests of a moment, however many a client sends', async () => {
  const answers: ((ms: number) => void)[] = [];
  const [path] = makePathPair();
  const measureLeg = () => new Promise<number>((resolve) => answers.push(resolve));
  const measure = makeLegMeter({ path: Object.assign(path, { measureLeg }) });
  const first = Array.from({ length: 1_000 }, measure);
  expect(answers).toHaveLength(1);
  answers[0]!(12.5);
  expect(await Promise.all(first)).toEqual(first.map(() => 12.5));
});

test('a direct path has no such leg', async () => {
  const [path] = makePathPair();
  expect(await makeLegMeter({ path })()).toBeNull();
});
