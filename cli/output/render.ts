import type { Block, Result } from '../command/result.ts';
import type { Output } from './output.ts';
import { relative } from './times.ts';

/** Prints what a command returned: its data with `--json`, its view otherwise. */
export async function render(out: Output, { data, view }: Result): Promise<void> {
  if (out.json) return out.printJson(data);
  const moment = ((iso: string | null) =>
    iso === null ? null : out.terminal ? relative(iso) : iso) as Parameters<typeof view>[0]['moment'];
  for (const block of await view({ colors: out.colors, moment })) {
    if (!block) continue;
    if (block.kind === 'table') await out.table(block.columns, block.rows as never[], block.empty);
    else printBlock(out, block);
  }
}

/** A table needs all its rows; the items of a stream come one by one. */
type ItemBlock = Exclude<Block, { kind: 'table' }>;

/** Prints one event of a stream: a line of JSON with `--json`, its blocks otherwise. */
export function renderEvent(out: Output, data: unknown, ...blocks: ItemBlock[]): void {
  if (out.json) out.printJsonLine(data);
  else for (const block of blocks) printBlock(out, block);
}

/** Prints the items of a result as they arrive, for results that may not fit in memory: with `--json` as one array. */
export async function renderItems<Item>(
  out: Output,
  items: AsyncIterable<Item>,
  view: (item: Item) => ItemBlock,
): Promise<void> {
  if (!out.json) {
    for await (const item of items) printBlock(out, view(item));
    return;
  }
  out.print('[');
  let isFirst = true;
  for await (const item of items) {
    out.printJsonItem(item, isFirst);
    isFirst = false;
  }
  out.print(']');
}

function printBlock(out: Output, block: ItemBlock): void {
  switch (block.kind) {
    case 'fields':
      out.fields(block.fields);
      break;
    case 'line':
      out.print(block.text);
      break;
    case 'note':
      out.note(block.text);
  }
}
