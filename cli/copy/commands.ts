import { type Command, command, rawCommand } from '../command/command.ts';
import { pathOption } from '../ssh/path-option.ts';
import { startOptions } from '../ssh/start-option.ts';

const group = 'Connect:';

export const copyCommands: readonly Command[] = [
  command({
    name: 'cp',
    group,
    summary: 'Copy files to and from workspaces',
    details:
      'WORKSPACE:PATH is a path in a workspace, relative to the home. Anything else is a path on this machine (write ./a:b ' +
      'for a name with a colon). Several sources need a folder as destination. Files appear under their name only when ' +
      'complete. Repeat an interrupted command to resume it. Symbolic links are followed. - is standard input or output.',
    arguments: {
      paths: { help: 'SOURCE… DESTINATION', many: true, completes: 'operands' },
    },
    options: {
      recursive: { kind: 'flag', short: 'r', help: 'Copy folders and their contents' },
      preserve: { kind: 'flag', short: 'p', help: 'Preserve times and permissions' },
      ...startOptions,
      path: pathOption,
    },
    examples: [
      ['cde cp notes.txt web:', 'into the home'],
      ['cde cp -r web:project/dist .', 'a folder to this machine'],
      ["cde cp 'web:logs/*.log' logs/", 'patterns are expanded in the workspace'],
      ['pg_dump shop | cde cp - web:dump.sql', 'from standard input'],
      ['cde cp web:dump.sql api:', 'from one workspace to another, through this machine'],
    ],
    load: () => import('./cp.ts').then((m) => m.cp),
  }),
  rawCommand({
    name: 'rsync',
    group,
    rawCompletes: 'operands',
    summary: 'Run rsync to and from workspaces',
    details:
      'Runs the rsync of this machine and accepts all of its options. WORKSPACE:PATH is a path in a workspace, which needs ' +
      'rsync too. At a terminal, cde asks before it starts a stopped workspace.',
    examples: [
      ['cde rsync -a --delete src/ web:src/', 'mirror a folder into the workspace'],
      ['cde rsync -avz web:results/ results/', 'from the workspace'],
    ],
    load: () => import('./rsync.ts').then((m) => m.rsync),
  }),
  rawCommand({
    name: 'ssh-for-rsync',
    group,
    summary: 'Connect rsync to a workspace',
    hidden: true,
    examples: [['cde ssh-for-rsync web rsync --server .', 'rsync calls this']],
    load: () => import('./rsync.ts').then((m) => m.sshForRsync),
  }),
];
