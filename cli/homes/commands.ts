import { type Command, command } from '../command.ts';

const group = 'Workspaces:';
const home = {
  home: { help: 'Its id, or the workspace that it was of, as `cde home list` shows them' },
} as const;

export const homeCommands: readonly Command[] = [
  command({
    name: 'home list',
    aliases: ['home ls'],
    group,
    summary: 'List the homes of deleted workspaces that can still be restored',
    options: { all: { kind: 'flag', short: 'a', help: "Everybody's that you may see, not only yours" } },
    examples: [['cde home list', 'until when each is kept']],
    load: () => import('./homes.ts').then((m) => m.list),
  }),
  command({
    name: 'home discard',
    group,
    summary: 'Give a kept home up before its time; it is deleted for good',
    arguments: home,
    options: { yes: { kind: 'flag', short: 'y', help: 'Do not ask' } },
    examples: [['cde home discard 0198a0c2-… --yes', 'without asking']],
    load: () => import('./homes.ts').then((m) => m.discard),
  }),
];
