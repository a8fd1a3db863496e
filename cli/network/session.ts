import type { SessionStretch } from '@cde/api/sessions.ts';
import { bytes } from '@cde/api/sizes.ts';
import type { Context } from '../command/context.ts';
import { fields, line, type Result, result, table } from '../command/result.ts';
import { getSessionWindows, listIncidents } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { clean } from '../output/output.ts';
import { legColumns, momentOption } from './legs.ts';

/** Rows of a day at the finest resolution. */
const maxRows = 10_000;

export async function session(
  context: Context,
  input: {
    session: string;
    since: string | undefined;
    until: string | undefined;
    resolution: string | undefined;
  },
): Promise<Result> {
  const [from, to] = [momentOption('--since', input.since), momentOption('--until', input.until)];
  const client = await context.client();
  const params = { session: input.session };
  let head: Omit<Awaited<ReturnType<typeof read>>, 'items' | 'next'> | undefined;
  const read = (page: { limit: number; after?: string }) =>
    client.call(getSessionWindows, {
      params,
      query: {
        ...page,
        ...(from !== undefined && { from }),
        ...(to !== undefined && { to }),
        ...(input.resolution !== undefined && { resolution: input.resolution as 'auto' }),
      },
    });
  const windows = await readAll(async (page) => {
    const { items, next, ...rest } = await read(page);
    head = rest;
    return { items, next };
  }, maxRows);
  const range = { ...(from !== undefined && { since: from }), ...(to !== undefined && { until: to }) };
  const incidents = (
    await readAll((page) =>
      client.call(listIncidents, { query: { ...page, ...range, session: input.session } }),
    )
  ).reverse();
  const { session: found, resolution } = head!;
  return result({ session: found, resolution, windows, incidents }, ({ moment, colors }) => [
    fields([
      ['session', found.id],
      ['workspace', clean(found.workspace)],
      ['user', clean(found.user)],
      ['client', clean(`${found.client.version} ${found.client.platform}`)],
      ['path', found.path && clean(`${found.path.kind} ${found.path.via}`)],
      ['region', found.region && clean(found.region)],
      ['began', moment(found.startedAt)],
      ['last seen', moment(found.lastSeenAt)],
      ['ended', moment(found.endedAt)],
    ]),
    line(''),
    table<SessionStretch>(
      [
        {
          title: resolution.toUpperCase(),
          cell: (row) => row.at.slice(0, 19).replace('T', ' '),
          plain: (row) => row.at,
        },
        { title: 'PATH', cell: ({ path }) => (path === null ? '' : clean(`${path.kind} ${path.via}`)) },
        ...legColumns,
        { title: 'UNANSWERED', cell: (row) => String(row.toAgent?.unanswered || '') },
        { title: 'TRAFFIC', cell: (row) => bytes(row.bytes), plain: (row) => String(row.bytes) },
      ],
      windows,
      'Nothing is retained of this time. Try a coarser --resolution.',
    ),
    incidents.length > 0 && line(''),
    ...incidents.map(({ at, summary }) => line(`${colors.dim(moment(at))}  ${clean(summary)}`)),
  ]);
}
