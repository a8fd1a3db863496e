import type { Context } from '../command/context.ts';
import { line, type Result, result, table } from '../command/result.ts';
import { clean } from '../output/output.ts';
import { relative } from '../output/times.ts';
import { shownSessions, stopBackground } from './client.ts';
import type { SessionSummary } from './messages.ts';

export async function show(context: Context): Promise<Result> {
  const sessions = await shownSessions(context);
  return result({ running: sessions !== null, items: sessions ?? [] }, () => [
    !sessions
      ? line('The background process is not running. The next cde ssh starts it.')
      : table<SessionSummary>(
          [
            { title: 'WORKSPACE', cell: ({ workspace }) => clean(workspace) },
            { title: 'PATH', cell: ({ path }, c) => (path ? pathText(path) : c.yellow('connecting')) },
            { title: 'STREAMS', cell: ({ streams }) => String(streams) },
            { title: 'SINCE', cell: ({ since }) => relative(since), plain: ({ since }) => since },
          ],
          sessions,
          'No sessions. cde ssh opens one.',
        ),
  ]);
}

export async function stop(context: Context): Promise<Result> {
  const stopped = await stopBackground(context);
  return result({ stopped }, () => [
    line(stopped ? 'The background process is stopped.' : 'The background process was not running.'),
  ]);
}

const pathText = ({ kind, via }: { kind: string; via: string }) => clean(`${kind} ${via}`);
