import { deletionText, shortStopText } from '@cde/api/idle-text.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import type { Context } from '../command/context.ts';
import { type Result, result, table } from '../command/result.ts';
import { listWorkspaces } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { relative } from '../output/times.ts';
import { paintStatus } from './status.ts';

export async function list(
  context: Context,
  input: {
    all: boolean;
    archived: boolean;
    owner: string | undefined;
    status: string | undefined;
    template: string | undefined;
    search: string | undefined;
    limit: number | undefined;
  },
): Promise<Result> {
  if (input.all && input.owner !== undefined)
    throw usage('--all and --owner exclude each other.', 'Use one of them.');
  const client = await context.client();
  const owner = input.all ? undefined : (input.owner ?? 'me');
  const workspaces = await readAll(
    (page) =>
      client.call(listWorkspaces, {
        query: {
          ...page,
          owner,
          status: input.status as Workspace['status'] | undefined,
          template: input.template,
          search: input.search,
          archived: input.archived ? 'only' : undefined,
        },
      }),
    input.limit ?? 1_000,
  );
  const now = Date.now();
  const others = owner !== 'me';
  const isFiltered = [input.status, input.template, input.search].some((value) => value !== undefined);
  return result(workspaces, () => [
    table<Workspace>(
      [
        {
          title: 'NAME',
          cell: (row, c) => c.bold(others ? `${row.owner}/${row.name}` : row.name),
        },
        { title: 'STATUS', cell: (row, c) => paintStatus(row.status, c) },
        {
          title: 'TEMPLATE',
          cell: (row, c) =>
            `${row.template} v${row.templateVersion}${row.outdated ? c.yellow(' (update)') : ''}`,
          plain: (row) => `${row.template} v${row.templateVersion}`,
        },
        {
          title: 'CHANGED',
          cell: (row) => relative(row.latestBuild?.createdAt ?? row.updatedAt),
          plain: (row) => row.latestBuild?.createdAt ?? row.updatedAt,
        },
        {
          title: 'STOPS',
          cell: (row) => (row.idle ? shortStopText(row.idle, now) : ''),
          plain: (row) => row.idle?.stopsAt ?? (row.idle ? shortStopText(row.idle, now) : ''),
        },
        {
          title: 'REASON',
          cell: (row, c) =>
            row.deletesAt ? c.yellow(deletionText(row.deletesAt, now)) : c.dim(clean(row.reason ?? '')),
          plain: (row) => (row.deletesAt ? deletionText(row.deletesAt, now) : (row.reason ?? '')),
        },
      ],
      workspaces,
      input.archived
        ? 'No workspaces are archived.'
        : isFiltered
          ? 'No workspaces match.'
          : others
            ? 'No workspaces. Create one: cde create NAME'
            : 'You have no workspaces. Create one: cde create NAME',
    ),
  ]);
}
