import { type Command, command } from '../command.ts';

const group = 'Account:';

export const loginCommands: readonly Command[] = [
  command({
    name: 'login',
    group,
    summary: 'Sign in to a server',
    details:
      'Opens your browser, or prints the address to open on any device, and waits until you allow it there. With --token ' +
      'a token is taken instead: from the option, or from stdin where it has no value, so that it is in no history.',
    arguments: { url: { help: 'The server (default: the current one)', optional: true } },
    options: {
      token: {
        kind: 'maybe',
        value: 'TOKEN',
        help: 'Sign in with this token; without a value, read from stdin',
      },
      browser: { kind: 'no', help: 'Only print the address' },
    },
    examples: [
      ['cde login https://cde.example.com', 'through the browser'],
      ['cde login https://cde.example.com --token < token.txt', 'in CI'],
    ],
    load: () => import('./login.ts').then((m) => m.login),
  }),
  command({
    name: 'logout',
    group,
    summary: 'Sign out, and revoke the token that login made',
    arguments: { url: { help: 'The server (default: the current one)', optional: true } },
    examples: [['cde logout', 'of the current server']],
    load: () => import('./logout.ts').then((m) => m.logout),
  }),
  command({
    name: 'whoami',
    group,
    summary: 'Say who you are, and where',
    examples: [
      ['cde whoami', 'user, role, server'],
      ['cde whoami --json', 'for programs'],
    ],
    load: () => import('./whoami.ts').then((m) => m.whoami),
  }),
];
