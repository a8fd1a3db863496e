import type { Session } from '@cde/api/sessions.ts';
import type { Context } from '../command/context.ts';
import { type Result, result, table } from '../command/result.ts';
import { listSessions } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { relative } from '../output/times.ts';
import { momentOption } from './legs.ts';

export async function sessions(
  context: Context,
  input: {
    user: string | undefined;
    workspace: string | undefined;
    active: boolean;
    past: boolean;
    since: string | undefined;
    limit: number | undefined;
  },
): Promise<Result> {
  const { user, workspace, active, past } = input;
  if (active && past) throw usage('--active and --past exclude each other.');
  const since = momentOption('--since', input.since);
  const client = await context.client();
  const items = await readAll(
    (page) =>
      client.call(listSessions, {
        query: {
          ...page,
          ...(user !== undefined && { user }),
          ...(workspace !== undefined && { workspace }),
          ...((active || past) && { state: active ? ('active' as const) : ('past' as const) }),
          ...(since !== undefined && { since }),
        },
      }),
    input.limit ?? 100,
  );
  return result(items, () => [
    table<Session>(
      [
        { title: 'SESSION', cell: (row) => row.id },
        { title: 'WORKSPACE', cell: (row, c) => c.bold(clean(row.workspace)) },
        { title: 'USER', cell: (row) => clean(row.user) },
        {
          title: 'PATH',
          cell: ({ path }) => (path === null ? '' : clean(`${path.kind} ${path.via}`)),
        },
        { title: 'REGION', cell: (row) => clean(row.region ?? '') },
        { title: 'CLIENT', cell: ({ client }) => clean(`${client.version} ${client.platform}`) },
        { title: 'BEGAN', cell: (row) => relative(row.startedAt), plain: (row) => row.startedAt },
        {
          title: 'STATE',
          cell: (row, c) =>
            row.isActive
              ? c.green('active')
              : row.endedAt === null
                ? `seen ${relative(row.lastSeenAt)}`
                : `ended ${relative(row.endedAt)}`,
          plain: (row) => (row.isActive ? 'active' : (row.endedAt ?? row.lastSeenAt)),
        },
        { title: 'INCIDENTS', cell: (row) => String(row.incidents || '') },
      ],
      items,
      'No recorded sessions match. A session is recorded while somebody uses it: cde ssh WORKSPACE',
    ),
  ]);
}
