import type { ActivityEvent, Lease, WorkspaceActivity } from '@cde/api/activity.ts';
import { deletionText, eventName, leaseOwner } from '@cde/api/idle-text.ts';
import type { Context } from '../command/context.ts';
import { type Blocks, type Format, fields, line, type Result, result, table } from '../command/result.ts';
import { getWorkspaceActivity, listActivityEvents } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { relative as ago, duration } from '../output/times.ts';
import { pathRef } from '../workspaces/reference.ts';
import { policyRows } from './policy-rows.ts';
import { stateRows } from './state-rows.ts';

const defaultLimit = 20;

export async function activity(
  context: Context,
  input: { workspace: string; limit: number | undefined; all: boolean },
): Promise<Result> {
  if (input.all && input.limit !== undefined) throw usage('--all and --limit exclude each other.');
  const client = await context.client();
  const params = { workspace: pathRef(input.workspace) };
  const limit = input.all ? Number.POSITIVE_INFINITY : (input.limit ?? defaultLimit);
  const [now, events] = await Promise.all([
    client.call(getWorkspaceActivity, { params }),
    readAll((query) => client.call(listActivityEvents, { params, query }), limit),
  ]);
  return result({ ...now, events }, (format) => blocks(now, events, format));
}

function blocks(now: WorkspaceActivity, events: ActivityEvent[], format: Format): Blocks {
  return [
    fields([
      ...(now.state ? [] : [['awake', 'no: it does not run'] satisfies [string, string]]),
      ...stateRows(now),
      ['deletes', now.deletesAt && deletionText(now.deletesAt, Date.now())],
      ['reported', now.state && (format.moment(now.reportedAt) ?? 'the agent has not reported yet')],
      ...policyRows(now),
    ]),
    line(''),
    signalTable(now),
    ...(now.leases.length > 0 ? [line(''), leaseTable(now.leases)] : []),
    line(''),
    eventTable(events),
  ];
}

function signalTable({ signals }: WorkspaceActivity) {
  type Row = WorkspaceActivity['signals'][number];
  return table<Row>(
    [
      { title: 'ACTIVITY', cell: (row) => row.signal },
      { title: 'SOURCE', cell: (row) => row.source },
      {
        title: 'LAST SEEN',
        cell: (row, c) => (row.lastAt === null ? c.dim('never') : ago(row.lastAt)),
        plain: (row) => row.lastAt ?? '',
      },
      { title: 'BY', cell: (row) => clean(row.by ?? '') },
    ],
    signals,
    'No activity is known.',
  );
}

function leaseTable(leases: Lease[]) {
  return table<Lease>(
    [
      { title: 'KEPT AWAKE BY', cell: (row) => clean(leaseOwner(row.by)) },
      { title: 'EXPIRES', cell: (row) => ago(row.expiresAt), plain: (row) => row.expiresAt },
      { title: 'REASON', cell: (row) => clean(row.reason) },
      { title: 'ID', cell: (row, c) => c.dim(row.id) },
    ],
    leases,
    'No keep-awake is active.',
  );
}

function eventTable(events: ActivityEvent[]) {
  return table<ActivityEvent>(
    [
      { title: 'WHEN', cell: (row) => ago(row.at), plain: (row) => row.at },
      {
        title: 'FOR',
        cell: (row) =>
          row.until === null || row.kind !== 'signal'
            ? ''
            : duration(Date.parse(row.until) - Date.parse(row.at)),
        plain: (row) => row.until ?? '',
      },
      { title: 'EVENT', cell: eventName },
      { title: 'BY', cell: (row) => clean(row.by ?? '') },
      { title: 'WHAT HAPPENED', cell: (row) => clean(row.text) },
    ],
    events,
    'Nothing has happened yet. Activity and stops appear here.',
  );
}
