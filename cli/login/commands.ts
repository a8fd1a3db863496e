import { type Command, command } from '../command/command.ts';

const group = 'Account:';

export const loginCommands: readonly Command[] = [
  command({
    name: 'login',
    group,
    summary: 'Sign in to a server',
    details:
      'Opens your browser, or prints an address to open on any device, and waits for your approval. --token signs in with ' +
      'a token instead. Without a value it is read from stdin, which keeps it out of your shell history. The server becomes ' +
      'the current one. Other logins are kept, and so is a login that is still valid, unless you pass --force.',
    arguments: { url: { help: 'The server, by URL or name (default: the current one)', optional: true } },
    options: {
      token: {
        kind: 'maybe',
        value: 'TOKEN',
        help: 'Sign in with this token; without a value, read from stdin',
      },
      browser: { kind: 'no', help: 'Print the address and do not open a browser' },
      name: {
        kind: 'text',
        value: 'NAME',
        help: 'A short name for the server, for --server and NAME.cde host names (default: from its address)',
      },
      force: { kind: 'flag', help: 'Sign in again even if the login is still valid' },
    },
    examples: [
      ['cde login https://cde.example.com', 'through the browser'],
      ['cde login https://cde.work.example --name work', 'a second server, called work'],
      ['cde login https://cde.example.com --token < token.txt', 'in CI'],
    ],
    load: () => import('./login.ts').then((m) => m.login),
  }),
  command({
    name: 'logout',
    group,
    summary: 'Sign out and revoke the token',
    details: 'Logins to other servers are kept. None of them becomes the current one automatically.',
    arguments: { url: { help: 'The server, by URL or name (default: the current one)', optional: true } },
    examples: [
      ['cde logout', 'from the current server'],
      ['cde logout work', 'from another server'],
    ],
    load: () => import('./logout.ts').then((m) => m.logout),
  }),
  command({
    name: 'whoami',
    group,
    summary: 'Show the user and server that you are signed in with',
    examples: [
      ['cde whoami', 'user, role, server'],
      ['cde whoami --json', 'for programs'],
    ],
    load: () => import('./whoami.ts').then((m) => m.whoami),
  }),
  command({
    name: 'server list',
    aliases: ['server ls'],
    group,
    summary: 'List servers that you are signed in to',
    details: 'Marks the current server with *. Works offline.',
    examples: [['cde server list', 'names, addresses, users and SSH host names']],
    load: () => import('./servers.ts').then((m) => m.list),
  }),
  command({
    name: 'server use',
    group,
    summary: 'Make a server the current one',
    details: 'Use --server SERVER for a single command, and CDE_SERVER for one shell.',
    arguments: { server: { help: 'Its name or URL' } },
    examples: [
      ['cde server use work', 'commands, and WORKSPACE.cde in ssh, use it from now on'],
      ['cde --server work list', 'one command only'],
    ],
    load: () => import('./servers.ts').then((m) => m.use),
  }),
  command({
    name: 'server rename',
    group,
    summary: 'Rename a server on this machine',
    details: 'SSH host names that contain the name change with it.',
    arguments: { server: { help: 'Its name or URL' }, name: { help: 'The new name' } },
    examples: [['cde server rename local laptop', 'web.laptop.cde instead of web.local.cde']],
    load: () => import('./servers.ts').then((m) => m.rename),
  }),
];
