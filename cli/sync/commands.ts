import { type Command, command } from '../command.ts';
import { pathOption } from '../ssh/path-option.ts';

export const syncCommands: readonly Command[] = [
  command({
    name: 'sync',
    group: 'Connect:',
    summary: 'Keep a folder of this machine and one of a workspace the same, both ways',
    details:
      'What changes on one side goes to the other, deletions too, until Ctrl-C; it survives lost connections and restarts. ' +
      "Where both have changed a file, yours keeps its name and the workspace's is kept beside it as " +
      'FILE.conflict-WORKSPACE-TIME. Left out are node_modules, .git, and what .cdeignore in the folder names, as in .gitignore.',
    arguments: {
      folders: { help: 'FOLDER WORKSPACE:FOLDER', many: true, optional: true, completes: 'operands' },
    },
    options: {
      once: { kind: 'flag', help: 'Make both the same once, and end' },
      dryRun: { kind: 'flag', short: 'n', help: 'Say what would change, change nothing' },
      ignore: {
        kind: 'list',
        short: 'i',
        value: 'PATTERN',
        help: 'Leave this out as well, as a line of .gitignore; !PATTERN takes it in',
      },
      gitignore: { kind: 'flag', help: "Leave out what the folder's own .gitignore names, too" },
      git: { kind: 'flag', help: 'Take in .git (git must not run on both sides at once)' },
      forget: {
        kind: 'flag',
        help: 'Forget what both last agreed on: what one side lacks is copied to it, nothing is deleted',
      },
      allowEmpty: {
        kind: 'flag',
        help: 'One side has lost all its files on purpose: delete them on the other as well',
      },
      list: { kind: 'flag', short: 'l', help: 'List what is, and was, kept in step from here' },
      start: { kind: 'no', help: 'Do not start a stopped workspace' },
      path: pathOption,
    },
    examples: [
      ['cde sync ./frontend web:project/frontend', 'edit here, run there'],
      ['cde sync -n ./frontend web:project/frontend', 'look first'],
      ['cde sync --once ./photos web:photos', 'once, and both ways'],
      ['cde sync --ignore dist --ignore "*.log" . web:project', 'leave more out'],
      ['cde sync --list', 'what is running'],
    ],
    load: () => import('./sync.ts').then((m) => m.sync),
  }),
];
