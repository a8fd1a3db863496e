import type { KeptHome } from '@cde/api/workspaces.ts';
import { confirm } from '../ask.ts';
import type { Context } from '../context.ts';
import { discardKeptHome, listKeptHomes } from '../endpoints.ts';
import { clean } from '../output.ts';
import { relative } from '../times.ts';

export async function list(context: Context, input: { all: boolean }): Promise<number | undefined> {
  const client = await context.client();
  const items: KeptHome[] = [];
  for (let after: string | undefined; ; ) {
    const page = await client.call(listKeptHomes, {
      query: { limit: 100, ...(!input.all && { owner: 'me' }), ...(after && { after }) },
    });
    items.push(...page.items);
    if (page.next === null) break;
    after = page.next;
  }
  if (context.out.json) {
    context.out.printJson(items);
    return undefined;
  }
  context.out.table<KeptHome>(
    [
      { title: 'ID', cell: (row) => row.id },
      {
        title: 'WORKSPACE',
        cell: (row, c) => c.bold(input.all ? `${row.owner}/${row.workspace}` : row.workspace),
      },
      { title: 'TEMPLATE', cell: (row) => row.template },
      { title: 'CLUSTER', cell: (row) => clean(row.cluster ?? '') },
      { title: 'SIZE', cell: (row) => clean(row.size ?? '') },
      { title: 'DELETED', cell: (row) => relative(row.deletedAt), plain: (row) => row.deletedAt },
      {
        title: 'KEPT UNTIL',
        cell: (row) => row.keptUntil.slice(0, 16).replace('T', ' '),
        plain: (row) => row.keptUntil,
      },
    ],
    items,
    'No kept homes.',
  );
  if (items.length > 0) context.out.note('Restore one: cde create NAME --template TEMPLATE --home ID');
  return undefined;
}

export async function discard(
  context: Context,
  input: { home: string; yes: boolean },
): Promise<number | undefined> {
  await confirm(context, `Delete the home ${input.home} for good?`, input.yes);
  const client = await context.client();
  await client.call(discardKeptHome, { params: { home: input.home } });
  if (context.out.json) context.out.printJson({ home: input.home, discarded: true });
  else context.out.print('The home is given up; its storage is deleted.');
  return undefined;
}
