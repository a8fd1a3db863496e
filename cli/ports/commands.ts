import { type Command, command } from '../command.ts';

const group = 'Connect:';
const levels = ['owner', 'signed-in', 'public'] as const;
const workspace = { help: 'NAME, or OWNER/NAME', completes: 'workspaces' } as const;
const port = { help: 'A port, as `cde ports` shows it' } as const;

export const portCommands: readonly Command[] = [
  command({
    name: 'ports',
    group,
    summary: 'What listens in a workspace, and whom it is shared with in the browser',
    details:
      'Programs that listen, as the agent last reported (twice a minute), and ports that are shared. ' +
      'Without a share nobody opens a port by the web; `cde port-forward` needs none. ' +
      'A line each for the server and for every satellite that serves ports.',
    arguments: { workspace },
    examples: [
      ['cde ports web', 'port, process, level, address'],
      ["cde ports web --json | jq -r '.items[].url'", 'for programs'],
    ],
    load: () => import('./ports.ts').then((m) => m.list),
  }),
  command({
    name: 'share',
    group,
    summary: 'Share a port of your workspace in the browser, or change whom it is shared with',
    details:
      'The address alone goes to stdout. `owner`: you, signed in; `signed-in`: every user of the server; ' +
      '`public`: anybody who can reach it. docs/ports.md says what keeps it safe.',
    arguments: { workspace, port },
    options: {
      level: {
        kind: 'text',
        value: 'LEVEL',
        help: `Whom with: ${levels.join(', ')} (owner)`,
        choices: levels,
        completes: levels,
      },
    },
    examples: [
      ['cde share web 3000', 'for yourself'],
      ['cde share web 3000 --level signed-in', 'for every user'],
    ],
    load: () => import('./ports.ts').then((m) => m.share),
  }),
  command({
    name: 'unshare',
    group,
    summary: 'Share a port with nobody any more; who has it open loses it within seconds',
    arguments: { workspace, port },
    examples: [['cde unshare web 3000', 'it goes on listening']],
    load: () => import('./ports.ts').then((m) => m.unshare),
  }),
];
