import type { Client } from '@cde/api/client.ts';
import type { RetainedHome } from '@cde/api/workspaces.ts';
import { confirm } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { line, type Result, result, table } from '../command/result.ts';
import { deleteRetainedHome, listRetainedHomes } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { relative } from '../output/times.ts';

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

async function keptHomes(client: Client, all: boolean): Promise<RetainedHome[]> {
  const items: RetainedHome[] = [];
  for (let after: string | undefined; ; ) {
    const page = await client.call(listRetainedHomes, {
      query: { limit: 100, ...(!all && { owner: 'me' }), ...(after && { after }) },
    });
    items.push(...page.items);
    if (page.next === null) return items;
    after = page.next;
  }
}

/**
 * The id of a retained home, given its id or its former workspace (`web`, `ada/web`). Rejects with `home-not-found`, or
 * with `usage` if several deleted workspaces of this name have one.
 */
export async function homeId(client: Client, text: string): Promise<string> {
  if (uuid.test(text)) return text;
  const named = text.includes('/');
  const found = (await keptHomes(client, named)).filter(
    ({ owner, workspace }) => (named ? `${owner}/${workspace}` : workspace) === text,
  );
  if (found.length === 1) return found[0]!.id;
  if (found.length === 0)
    throw new Failure('home-not-found', `There is no retained home of a workspace ${text}.`, {
      exitCode: exitCodes.notFound,
      actions: [{ kind: 'list-homes' }],
    });
  throw usage(
    `${found.length} deleted workspaces named ${text} have a retained home.`,
    `Choose one by its id:\n${found.map(({ id, deletedAt }) => `${id}  deleted ${relative(deletedAt)}`).join('\n')}`,
  );
}

export async function list(context: Context, input: { all: boolean }): Promise<Result> {
  const client = await context.client();
  const items = await keptHomes(client, input.all);
  return result(items, () => [
    table<RetainedHome>(
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
          cell: (row) => relative(row.keptUntil),
          plain: (row) => row.keptUntil,
        },
      ],
      items,
      'No retained homes. The home of a deleted workspace appears here until its grace period ends.',
    ),
  ]);
}

export async function discard(context: Context, input: { home: string; yes: boolean }): Promise<Result> {
  const client = await context.client();
  const home = await homeId(client, input.home);
  await confirm(context, `Delete the home ${input.home} for good?`, input.yes);
  await client.call(deleteRetainedHome, { params: { home } });
  return result({ home, discarded: true }, () => [line('The home is deleted.')]);
}
