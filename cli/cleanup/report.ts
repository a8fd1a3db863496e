import type { CleanupReport } from '@cde/api/cleanup.ts';
import type { ReportKey } from '@cde/api/idle-values.ts';
import type { Context } from '../command/context.ts';
import { note, type Result, result, table } from '../command/result.ts';
import { getCleanupReport } from '../connection/endpoints.ts';
import { clean } from '../output/output.ts';

type Row = CleanupReport['rows'][number];

const hours = (count: number) => `${count.toFixed(1)} h`;

export async function report(
  context: Context,
  input: { days: number | undefined; by: string | undefined },
): Promise<Result> {
  const client = await context.client();
  const by = (input.by ?? 'template') as ReportKey;
  const found = await client.call(getCleanupReport, { query: { days: input.days ?? 30, by } });
  const sum = (of: (row: Row) => number) => found.rows.reduce((total, row) => total + of(row), 0);
  const saved = sum((row) => row.stoppedHours);
  const all = saved + sum((row) => row.runningHours);
  return result(found, () => [
    table<Row>(
      [
        { title: by.toUpperCase(), cell: (row, c) => c.bold(clean(row.key)), plain: (row) => row.key },
        {
          title: 'SAVED',
          cell: (row) => hours(row.stoppedHours),
          plain: (row) => String(row.stoppedHours),
        },
        {
          title: 'RUNNING',
          cell: (row) => hours(row.runningHours),
          plain: (row) => String(row.runningHours),
        },
        { title: 'STOPS', cell: (row) => String(row.stops) },
      ],
      found.rows,
      'No workspace ran in this time.',
    ),
    all > 0 &&
      note(
        `${hours(saved)} saved in ${sum((row) => row.stops)} stops: ${Math.round((saved / all) * 100)} % of the hours that workspaces would have run.`,
      ),
  ]);
}
