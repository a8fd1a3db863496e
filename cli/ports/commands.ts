import { type Command, command } from '../command/command.ts';

const group = 'Connect:';
const levels = ['owner', 'signed-in', 'public'] as const;
const workspace = { help: 'NAME or OWNER/NAME', completes: 'workspaces' } as const;
const port = { help: 'A port from `cde ports`' } as const;

export const portCommands: readonly Command[] = [
  command({
    name: 'ports',
    group,
    summary: 'List the ports of a workspace',
    details:
      'Lists listening programs, which the agent reports twice a minute, and shared ports. Only shared ports can be opened ' +
      'in the browser. `cde port-forward` works without sharing. A port has one line for the server and one for each ' +
      'satellite that serves it.',
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
    summary: 'Share a port of your workspace in the browser',
    details:
      'Prints the address. Level `owner` is only for you, `signed-in` for every user of the server, and `public` for ' +
      'anyone who can reach the server. Share a port again to change its level. See docs/ports.md for security.',
    arguments: { workspace, port },
    options: {
      level: {
        kind: 'text',
        value: 'LEVEL',
        help: `Who can open it: ${levels.join(', ')} (default owner)`,
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
    summary: 'Stop sharing a port',
    details: 'Open connections are closed within a few seconds. The program keeps running.',
    arguments: { workspace, port },
    examples: [['cde unshare web 3000', 'port 3000 can no longer be opened in the browser']],
    load: () => import('./ports.ts').then((m) => m.unshare),
  }),
];
