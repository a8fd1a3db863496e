import type { Context } from '../command/context.ts';
import { type Result, result, table } from '../command/result.ts';
import { clean } from '../output/output.ts';
import { relative } from '../output/times.ts';
import { listPairs } from './state.ts';

/** Current and past synchronizations of this machine. */
export async function list(context: Context): Promise<Result> {
  const pairs = await listPairs(context.env);
  return result(pairs, () => [
    table(
      [
        { title: 'HERE', cell: ({ local }) => clean(local) },
        { title: 'WORKSPACE', cell: ({ workspace, remote }) => clean(`${workspace}:${remote}`) },
        {
          title: 'STATE',
          cell: ({ running }, c) =>
            running
              ? running.state === 'settled'
                ? c.green('in step')
                : c.yellow(running.state)
              : 'not running',
        },
        {
          title: 'CHANGED',
          cell: ({ settledAt }) => (settledAt ? relative(settledAt) : ''),
          plain: ({ settledAt }) => settledAt ?? '',
        },
        { title: 'PROBLEMS', cell: ({ running }) => (running ? String(running.problems) : '') },
      ],
      pairs,
      'No synchronizations yet. Start one: cde sync FOLDER WORKSPACE:FOLDER',
    ),
  ]);
}
