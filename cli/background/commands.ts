import { type Command, command } from '../command.ts';

const group = 'Connect:';

export const backgroundCommands: readonly Command[] = [
  command({
    name: 'background show',
    group,
    summary: 'The sessions that commands share',
    details:
      'cde ssh, and ssh with the hosts of config-ssh, share one session for each workspace, held by a small process in ' +
      'the background. It starts and ends by itself. CDE_BACKGROUND=off does without.',
    examples: [['cde background show', 'which sessions are open, over which path']],
    load: () => import('./show.ts').then((m) => m.show),
  }),
  command({
    name: 'background stop',
    group,
    summary: 'End it, and the sessions that it holds',
    examples: [['cde background stop', 'open ssh connections break']],
    load: () => import('./show.ts').then((m) => m.stop),
  }),
  command({
    name: 'background run',
    group,
    summary: 'What the background process runs',
    hidden: true,
    examples: [['cde background run', 'in the foreground, to look at it']],
    load: () => import('./background.ts').then((m) => m.runBackground),
  }),
];
