import type { Context } from '../context.ts';
import { clean } from '../output.ts';
import { relative } from '../times.ts';
import { listPairs } from './state.ts';

/** What is, and has been, kept in step from this machine. */
export async function list(context: Context): Promise<number | undefined> {
  const { out } = context;
  const pairs = await listPairs(context.env);
  if (out.json) {
    out.printJson(pairs);
    return undefined;
  }
  out.table(
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
    'Nothing has been kept in step yet.',
  );
  return undefined;
}
