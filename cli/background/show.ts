import type { Context } from '../context.ts';
import { clean } from '../output.ts';
import { relative } from '../times.ts';
import { shownSessions, stopBackground } from './client.ts';

export async function show(context: Context): Promise<number | undefined> {
  const { out } = context;
  const sessions = await shownSessions(context);
  if (out.json) out.printJson({ running: sessions !== null, items: sessions ?? [] });
  else if (!sessions) out.print('No background process runs. The next cde ssh starts it.');
  else
    out.table(
      [
        { title: 'WORKSPACE', cell: ({ workspace }) => clean(workspace) },
        { title: 'PATH', cell: ({ path }, c) => (path ? pathText(path) : c.yellow('looking for one')) },
        { title: 'STREAMS', cell: ({ streams }) => String(streams) },
        { title: 'SINCE', cell: ({ since }) => relative(since), plain: ({ since }) => since },
      ],
      sessions,
      'No session is open.',
    );
  return undefined;
}

export async function stop(context: Context): Promise<number | undefined> {
  const stopped = await stopBackground(context);
  if (context.out.json) context.out.printJson({ stopped });
  else context.out.print(stopped ? 'It has ended.' : 'No background process ran.');
  return undefined;
}

const pathText = ({ kind, via }: { kind: string; via: string }) => clean(`${kind} ${via}`);
