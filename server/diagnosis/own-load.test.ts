import { expect, test } from 'vitest';
import { makeOwnLoad } from './own-load.ts';

const begun = Date.parse('2026-11-30T09:00:00Z');

test('the server records its own load every fifteen seconds, and at once that it stood still', async () => {
  let at = begun;
  const rows: { satellite: string; at: Date; ms: number; loopDelayMs: number }[] = [];
  const db = { insert: () => ({ values: async (row: (typeof rows)[number]) => void rows.push(row) }) };
  const load = makeOwnLoad({
    database: { db } as never,
    url: 'https://two.example.com',
    satelliteNames: async () => new Map([['https://two.example.com', 'embedded-two']]),
    now: () => new Date(at),
  });
  const tick = async (ms: number) => {
    at += ms;
    await load.tick();
  };
  for (let second = 1; second <= 15; second++) await tick(second === 5 ? 1_300 : 1_000);
  expect(rows).toEqual([{ satellite: 'embedded-two', at: new Date(begun), ms: 15_300, loopDelayMs: 300 }]);
  await tick(12_000);
  expect(rows.slice(1)).toEqual([
    { satellite: 'embedded-two', at: new Date(begun + 15_300), ms: 12_000, loopDelayMs: 11_000 },
  ]);
});
