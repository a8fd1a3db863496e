import type { Output } from './output.ts';
import type { Result } from './result.ts';
import { relative } from './times.ts';

/** Prints what a command returned: its data with `--json`, its view otherwise. */
export async function render(out: Output, { data, view }: Result): Promise<void> {
  if (out.json) return out.printJson(data);
  const moment = ((iso: string | null) =>
    iso === null ? null : out.terminal ? relative(iso) : iso) as Parameters<typeof view>[0]['moment'];
  for (const block of await view({ colors: out.colors, moment })) {
    if (!block) continue;
    switch (block.kind) {
      case 'table':
        out.table(block.columns, block.rows as never[], block.empty);
        break;
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
}
