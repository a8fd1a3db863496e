import type { AuditRow } from '@cde/api/identity.ts';
import type { Context } from '../command/context.ts';
import { type Result, result, table } from '../command/result.ts';
import { listAudit } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { parseMoment, relative } from '../output/times.ts';

export async function audit(
  context: Context,
  input: {
    actor: string | undefined;
    action: string | undefined;
    target: string | undefined;
    since: string | undefined;
    until: string | undefined;
    limit: number | undefined;
  },
): Promise<Result> {
  const filter = {
    actor: input.actor,
    action: input.action,
    target: input.target,
    since: moment('--since', input.since),
    until: moment('--until', input.until),
  };
  const client = await context.client();
  const rows = await readAll(
    (page) => client.call(listAudit, { query: { ...page, ...filter } }),
    input.limit ?? 100,
  );
  return result(rows, () => [
    table<AuditRow>(
      [
        { title: 'WHEN', cell: (row) => relative(row.at), plain: (row) => row.at },
        { title: 'WHO', cell: (row, c) => c.bold(clean(row.actor)) },
        { title: 'ACTION', cell: (row) => row.action },
        { title: 'TARGET', cell: (row) => clean(`${row.targetType} ${row.targetName}`) },
        { title: 'FROM', cell: (row) => row.ip ?? '' },
        { title: 'REQUEST', cell: (row, c) => c.dim(row.requestId) },
      ],
      rows,
      'No audit entries match.',
    ),
  ]);
}

function moment(flag: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const at = parseMoment(text);
  if (at === null)
    throw usage(
      `${flag} takes a time, not ${JSON.stringify(text)}.`,
      'Write 2h, 7d, 2026-05-01 or 2026-05-01T12:00:00Z.',
    );
  return at;
}
