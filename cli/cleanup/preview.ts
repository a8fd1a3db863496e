import type { CleanupCandidate } from '@cde/api/cleanup.ts';
import { confirm } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { line, note, type Result, result, table } from '../command/result.ts';
import { previewCleanup, releaseBrake } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { usage } from '../failure/failure.ts';
import { type Colors, clean } from '../output/output.ts';
import { relative } from '../output/times.ts';

const defaultLimit = 1_000;

function actionOf({ action }: CleanupCandidate, c: Colors): string {
  if (action === 'hold') return c.red(action);
  if (action === 'delete') return c.red(action);
  return action === 'stop' || action === 'make-dormant' ? c.yellow(action) : action;
}

export async function preview(
  context: Context,
  input: { dryRun: boolean; limit: number | undefined },
): Promise<Result> {
  if (!input.dryRun)
    throw usage(
      'Cleanup runs by itself.',
      'Add --dry-run to list what it would do. Bounds: cde cleanup policy',
    );
  const client = await context.client();
  const candidates = await readAll(
    (query) => client.call(previewCleanup, { query }),
    input.limit ?? defaultLimit,
  );
  const held = candidates.filter(({ action }) => action === 'hold').length;
  return result(candidates, () => [
    table<CleanupCandidate>(
      [
        { title: 'WORKSPACE', cell: (row, c) => c.bold(clean(row.workspace)) },
        { title: 'TEMPLATE', cell: (row) => clean(row.template) },
        { title: 'ACTION', cell: actionOf, plain: (row) => row.action },
        { title: 'BY', cell: (row) => row.cause },
        { title: 'DUE', cell: (row) => relative(row.at), plain: (row) => row.at },
        { title: 'WHY', cell: (row) => clean(row.text) },
      ],
      candidates,
      'Nothing is due within an hour.',
    ),
    held > 0 &&
      note(`The brake holds back ${held}. Let ${held === 1 ? 'it' : 'them'} go ahead: cde cleanup release`),
  ]);
}

export async function release(context: Context, input: { yes: boolean }): Promise<Result> {
  await confirm(context, 'Stop or delete the workspaces that the brake holds back?', input.yes);
  const client = await context.client();
  const reply = await client.call(releaseBrake, { body: {} });
  const { released } = reply;
  return result(reply, () => [
    line(
      released === 0
        ? 'The brake held nothing back.'
        : `The brake let ${released} ${released === 1 ? 'workspace' : 'workspaces'} go.`,
    ),
  ]);
}
