import { expect, test } from 'vitest';
import { fields, line, note, type Result, result, table } from '../command/result.ts';
import type { Output } from './output.ts';
import { render } from './render.ts';

const at = '2026-01-01T00:00:00.000Z';
const shop = result({ name: 'shop', at }, ({ moment }) => [
  table([{ title: 'NAME', cell: (row: string) => row }], ['shop'], 'No shops.'),
  fields([['opened', moment(at)]]),
  false,
  line('shop is open.'),
  note('Come in.'),
]);

async function rendered(what: Result, more: Partial<Output>): Promise<unknown[]> {
  const calls: unknown[] = [];
  const record =
    (kind: string) =>
    (...args: unknown[]) =>
      void calls.push([kind, ...args]);
  const out = {
    json: false,
    terminal: false,
    print: record('print'),
    printJson: record('json'),
    note: record('note'),
    table: record('table'),
    fields: record('fields'),
    ...more,
  } as unknown as Output;
  await render(out, what);
  return calls;
}

test('--json prints the data, and the view is not even called', async () => {
  expect(await rendered(shop, { json: true })).toEqual([['json', { name: 'shop', at }]]);
  const refuses = result([], () => {
    throw new Error('called');
  });
  expect(await rendered(refuses, { json: true })).toEqual([['json', []]]);
});

test('without --json the blocks are printed in order, with relative times only on a terminal', async () => {
  const piped = await rendered(shop, {});
  expect(piped).toEqual([
    ['table', expect.any(Array), ['shop'], 'No shops.'],
    ['fields', [['opened', at]]],
    ['print', 'shop is open.'],
    ['note', 'Come in.'],
  ]);
  expect((await rendered(shop, { terminal: true }))[1]).toEqual([
    'fields',
    [['opened', expect.stringMatching(/ago$/)]],
  ]);
});
