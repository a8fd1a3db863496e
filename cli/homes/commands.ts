import { type Command, command } from '../command/command.ts';

const group = 'Workspaces:';
const home = {
  home: { help: 'Its id or its former workspace, from `cde home list`' },
} as const;

export const homeCommands: readonly Command[] = [
  command({
    name: 'home list',
    aliases: ['home ls'],
    group,
    summary: 'List retained homes of deleted workspaces',
    options: {
      all: { kind: 'flag', short: 'a', help: 'All homes that you have access to, not only your own' },
    },
    examples: [['cde home list', 'with the end of their grace period']],
    load: () => import('./homes.ts').then((m) => m.list),
  }),
  command({
    name: 'home discard',
    group,
    summary: 'Delete a retained home permanently',
    arguments: home,
    options: { yes: { kind: 'flag', short: 'y', help: 'Skip the confirmation' } },
    examples: [['cde home discard 0198a0c2-… --yes', 'without asking']],
    load: () => import('./homes.ts').then((m) => m.discard),
  }),
];
