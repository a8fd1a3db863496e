import { type Command, command, rawCommand } from '../command.ts';
import { pathOption } from '../ssh/path-option.ts';

const group = 'Connect:';

export const copyCommands: readonly Command[] = [
  command({
    name: 'cp',
    group,
    summary: 'Copy files to and from workspaces',
    details:
      'WORKSPACE:PATH is a file in a workspace (relative to the home), everything else one of this machine (write ./a:b ' +
      'for a name with a colon). Several sources go into a folder. A file takes its name only once it is whole; the same ' +
      'command goes on where one was interrupted. Links are followed. A - is standard input or output.',
    arguments: {
      paths: { help: 'SOURCE… DESTINATION', many: true, completes: 'operands' },
    },
    options: {
      recursive: { kind: 'flag', short: 'r', help: 'Folders too, with all that is in them' },
      preserve: { kind: 'flag', short: 'p', help: 'Keep the times and all permissions' },
      start: { kind: 'no', help: 'Do not start a stopped workspace' },
      path: pathOption,
    },
    examples: [
      ['cde cp notes.txt web:', 'into the home'],
      ['cde cp -r web:project/dist .', 'a folder from there'],
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
      "This machine's rsync with every option of its own; WORKSPACE:PATH is a file in a workspace, which needs an rsync " +
      'too. A stopped workspace is started first.',
    examples: [
      ['cde rsync -a --delete src/ web:src/', 'make a folder there the same'],
      ['cde rsync -avz web:results/ results/', 'from the workspace'],
    ],
    load: () => import('./rsync.ts').then((m) => m.rsync),
  }),
  rawCommand({
    name: 'ssh-for-rsync',
    group,
    summary: 'What rsync runs to reach a workspace',
    hidden: true,
    examples: [['cde ssh-for-rsync web rsync --server .', 'rsync itself calls this']],
    load: () => import('./rsync.ts').then((m) => m.sshForRsync),
  }),
];
