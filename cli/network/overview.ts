import type { NetworkGrouping } from '@cde/api/session-values.ts';
import type { NetworkGroup, NetworkOverview } from '@cde/api/sessions.ts';
import type { Context } from '../command/context.ts';
import { line, note, type Result, result, table } from '../command/result.ts';
import { getNetwork } from '../connection/endpoints.ts';
import { clean } from '../output/output.ts';
import { legColumns, length, milliseconds, momentOption, share } from './legs.ts';

export async function overview(
  context: Context,
  input: { by: string | undefined; since: string | undefined; until: string | undefined },
): Promise<Result> {
  const by = (input.by ?? 'region') as NetworkGrouping;
  const [from, to] = [momentOption('--since', input.since), momentOption('--until', input.until)];
  const client = await context.client();
  const found = await client.call(getNetwork, {
    query: {
      ...{ by, timeZone: Intl.DateTimeFormat().resolvedOptions().timeZone },
      ...(from !== undefined && { from }),
      ...(to !== undefined && { to }),
    },
  });
  const { total, activeSessions } = found;
  return result(found, ({ colors, moment }) => [
    groupTable(by, found),
    line(''),
    line(colors.bold('Incidents')),
    causeTable(found),
    line(''),
    line(colors.bold('Sessions with the most noticeable latency and interruptions')),
    worstTable(found),
    note(
      `${total.sessions} ${total.sessions === 1 ? 'session' : 'sessions'} from ${moment(found.from)} to ${moment(found.to)}, ${activeSessions} active now` +
        `${total.ms === 0 ? '' : `; ${share(total.slowMs, total.ms)} of ${length(total.ms)} in use was slow`}.` +
        `${found.ofEverybody ? '' : ' Your role sees only your own.'}`,
    ),
  ]);
}

const groupTable = (by: NetworkGrouping, { groups }: NetworkOverview) =>
  table<NetworkGroup>(
    [
      { title: by.toUpperCase(), cell: (row, c) => c.bold(clean(row.key)), plain: (row) => row.key },
      { title: 'SESSIONS', cell: (row) => String(row.sessions) },
      { title: 'IN USE', cell: (row) => length(row.ms), plain: (row) => String(row.ms) },
      {
        title: 'SLOW',
        cell: (row, c) => (row.slowMs > 0 ? c.yellow(share(row.slowMs, row.ms)) : ''),
        plain: (row) => String(row.slowMs),
      },
      ...legColumns,
      { title: 'INCIDENTS', cell: (row) => String(row.incidents || '') },
    ],
    groups,
    'No session was used in this time. What sessions record appears here after five minutes.',
  );

const causeTable = ({ causes }: NetworkOverview) =>
  table<NetworkOverview['causes'][number]>(
    [
      { title: 'CAUSE', cell: (row, c) => c.bold(row.cause) },
      { title: 'SEGMENT', cell: (row) => row.segment },
      { title: 'INCIDENTS', cell: (row) => String(row.incidents) },
      { title: 'SESSIONS', cell: (row) => String(row.sessions) },
      { title: 'USERS', cell: (row) => String(row.users) },
      { title: 'TOGETHER', cell: (row) => length(row.ms), plain: (row) => String(row.ms) },
    ],
    causes,
    'No session was interrupted or slow.',
  );

const worstTable = ({ worst }: NetworkOverview) =>
  table<NetworkOverview['worst'][number]>(
    [
      { title: 'SESSION', cell: (row) => row.session.id },
      { title: 'WORKSPACE', cell: (row, c) => c.bold(clean(row.session.workspace)) },
      {
        title: 'PATH',
        cell: ({ session: { path } }) => (path === null ? '' : clean(`${path.kind} ${path.via}`)),
      },
      { title: 'IN USE', cell: (row) => length(row.ms), plain: (row) => String(row.ms) },
      { title: 'SLOW', cell: (row) => share(row.slowMs, row.ms), plain: (row) => String(row.slowMs) },
      { title: 'P95', cell: (row) => milliseconds(row.p95), plain: (row) => String(row.p95 ?? '') },
      { title: 'INCIDENTS', cell: (row) => String(row.incidents || '') },
    ],
    worst,
    'None.',
  );
