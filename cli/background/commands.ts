import { type Command, command } from '../command/command.ts';

const group = 'Connect:';

export const backgroundCommands: readonly Command[] = [
  command({
    name: 'background show',
    group,
    summary: 'Show the sessions that commands share',
    details:
      'cde ssh, and ssh to the hosts of config-ssh, share one session per workspace. A small background process holds it, ' +
      'and starts and stops automatically. CDE_BACKGROUND=off disables it.',
    examples: [['cde background show', 'the open sessions and their paths']],
    load: () => import('./show.ts').then((m) => m.show),
  }),
  command({
    name: 'background stop',
    group,
    summary: 'Stop the background process and its sessions',
    examples: [['cde background stop', 'open ssh connections break']],
    load: () => import('./show.ts').then((m) => m.stop),
  }),
  command({
    name: 'background run',
    group,
    summary: 'Run the background process',
    hidden: true,
    examples: [['cde background run', 'in the foreground, for debugging']],
    load: () => import('./background.ts').then((m) => m.runBackground),
  }),
];
