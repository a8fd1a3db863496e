import { expect, test } from 'vitest';
import { makeDraining } from './draining.ts';

test('a draining that ended early does not finish with a later one', async () => {
  let sessions = 1;
  const draining = makeDraining(() => sessions);
  const finished: string[] = [];
  void draining.begin().then(() => finished.push('first'));
  draining.end();
  const second = draining.begin().then(() => finished.push('second'));
  sessions = 0;
  draining.sessionEnded();
  await second;
  expect(finished).toEqual(['second']);
});
