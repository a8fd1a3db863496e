import { type Command, command } from '../command/command.ts';
import { pathOption } from '../ssh/path-option.ts';
import { startOptions } from '../ssh/start-option.ts';

export const syncCommands: readonly Command[] = [
  command({
    name: 'sync',
    group: 'Connect:',
    summary: 'Synchronize a local folder with a folder in a workspace',
    details:
      'Copies changes in both directions, including deletions, until Ctrl-C. Survives lost connections and restarts. If a ' +
      'file has changed on both sides, yours keeps its name and the other is saved beside it as ' +
      'FILE.conflict-WORKSPACE-TIME. node_modules, .git and the patterns in .cdeignore (same syntax as .gitignore) are ignored.',
    arguments: {
      folders: { help: 'FOLDER WORKSPACE:FOLDER', many: true, optional: true, completes: 'operands' },
    },
    options: {
      once: { kind: 'flag', help: 'Synchronize once and exit' },
      dryRun: { kind: 'flag', short: 'n', help: 'Print what would change and change nothing' },
      ignore: {
        kind: 'list',
        short: 'i',
        value: 'PATTERN',
        help: 'Ignore this pattern too (.gitignore syntax, !PATTERN includes it again, repeatable)',
      },
      gitignore: { kind: 'flag', help: 'Also ignore what .gitignore in the folder ignores' },
      git: { kind: 'flag', help: 'Include .git (do not run git on both sides at once)' },
      forget: {
        kind: 'flag',
        help: 'Forget the last synchronized state: missing files are copied and nothing is deleted',
      },
      allowEmpty: {
        kind: 'flag',
        help: 'Delete all files on one side if the other side is empty',
      },
      list: { kind: 'flag', short: 'l', help: 'List current and past synchronizations from this machine' },
      ...startOptions,
      path: pathOption,
    },
    examples: [
      ['cde sync ./frontend web:project/frontend', 'edit here, run there'],
      ['cde sync -n ./frontend web:project/frontend', 'preview the changes'],
      ['cde sync --once ./photos web:photos', 'once, in both directions'],
      ['cde sync --ignore dist --ignore "*.log" . web:project', 'ignore more'],
      ['cde sync --list', 'current and past synchronizations'],
    ],
    load: () => import('./sync.ts').then((m) => m.sync),
  }),
];
