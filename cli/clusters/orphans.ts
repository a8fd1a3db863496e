import type { Orphan } from '@cde/api/clusters.ts';
import { confirm } from '../ask.ts';
import type { Context } from '../context.ts';
import { cleanOrphans, listOrphans } from '../endpoints.ts';
import { type Colors, clean } from '../output.ts';
import { relative } from '../times.ts';

function action({ action: what }: Orphan, c: Colors): string {
  if (what === 'delete') return c.red(what);
  return what === 'keep' ? c.green(what) : what;
}

/** Says what the sweep finds; with `clean` does it, once that was agreed to. */
export async function orphans(
  context: Context,
  input: { clean: boolean; yes: boolean },
): Promise<number | undefined> {
  const { out } = context;
  const client = await context.client();
  const found = await client.call(listOrphans);
  const doomed = found.items.filter((one) => one.action === 'delete');
  const show = (items: Orphan[]) =>
    out.table<Orphan>(
      [
        { title: 'CLUSTER', cell: (row, c) => c.bold(row.cluster) },
        { title: 'KIND', cell: (row) => row.kind },
        { title: 'NAME', cell: (row) => clean(row.name) },
        { title: 'SINCE', cell: (row) => relative(row.since), plain: (row) => row.since ?? '' },
        { title: 'ACTION', cell: action },
        { title: 'WHY', cell: (row) => clean(row.reason) },
      ],
      items,
      'No orphans.',
    );
  if (!input.clean || doomed.length === 0) {
    if (out.json) out.printJson(found);
    else {
      show(found.items);
      if (found.unseen.length > 0)
        out.note(
          `Not looked at, because they are away: ${found.unseen.map((name) => clean(name)).join(', ')}.`,
        );
      if (doomed.length > 0)
        out.note(
          'Nothing was done. cde cluster orphans --clean deletes what says delete, and keeps the homes.',
        );
    }
    return undefined;
  }
  if (!out.json) show(doomed);
  const count = doomed.length === 1 ? 'this namespace' : `these ${doomed.length} namespaces`;
  await confirm(context, `Delete ${count}? Homes in them are kept.`, input.yes);
  const done = await client.call(cleanOrphans, { body: { dryRun: false } });
  if (out.json) out.printJson(done);
  else show(done.items);
  return undefined;
}
