import type { Orphan } from '@cde/api/clusters.ts';
import { canAsk, confirm } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { note, type Result, result, table } from '../command/result.ts';
import { cleanOrphans, listOrphans } from '../connection/endpoints.ts';
import { type Colors, clean } from '../output/output.ts';
import { render } from '../output/render.ts';
import { relative } from '../output/times.ts';

function action({ action: what }: Orphan, c: Colors): string {
  if (what === 'delete') return c.red(what);
  return what === 'keep' ? c.green(what) : what;
}

/** Lists orphans; with `clean`, deletes all but homes after a confirmation. */
export async function orphans(context: Context, input: { clean: boolean; yes: boolean }): Promise<Result> {
  const client = await context.client();
  const found = await client.call(listOrphans);
  const doomed = found.items.filter((one) => one.action === 'delete');
  const rows = (items: Orphan[]) =>
    table<Orphan>(
      [
        { title: 'ON', cell: (row, c) => c.bold(clean(row.cluster ?? row.provider)) },
        { title: 'KIND', cell: (row) => row.kind },
        { title: 'NAME', cell: (row) => clean(row.name) },
        { title: 'SINCE', cell: (row) => relative(row.since), plain: (row) => row.since ?? '' },
        { title: 'ACTION', cell: action },
        { title: 'WHY', cell: (row) => clean(row.reason) },
      ],
      items,
      'No orphans. What is on clusters and engines without a workspace appears here.',
    );
  if (!input.clean || doomed.length === 0) {
    return result(found, () => [
      rows(found.items),
      found.unseen.length > 0 &&
        note(`Skipped, because unreachable: ${found.unseen.map((name) => clean(name)).join(', ')}.`),
      doomed.length > 0 &&
        note('Nothing was changed. Delete them and keep all homes: cde cluster orphans --clean'),
    ]);
  }
  if (canAsk(context))
    await render(
      context.out,
      result(doomed, () => [rows(doomed)]),
    );
  const count = doomed.length === 1 ? 'this object' : `these ${doomed.length} objects`;
  await confirm(context, `Delete ${count}? Homes are kept.`, input.yes);
  const done = await client.call(cleanOrphans, { body: { dryRun: false } });
  return result(done, () => [rows(done.items)]);
}
