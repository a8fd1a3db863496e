import { type Command, command } from '../command.ts';

const group = 'Account:';

export const loginCommands: readonly Command[] = [
  command({
    name: 'login',
    group,
    summary: 'Sign in to a server',
    details:
      'Opens your browser, or prints the address to open on any device, and waits until you allow it there. With --token ' +
      'a token is taken instead: from the option, or from stdin if it has no value, so that it is in no history. The server ' +
      'becomes the current one; other logins stay. A login that is still valid is kept, unless --force.',
    arguments: { url: { help: 'The server, by URL or name (default: the current one)', optional: true } },
    options: {
      token: {
        kind: 'maybe',
        value: 'TOKEN',
        help: 'Sign in with this token; without a value, read from stdin',
      },
      browser: { kind: 'no', help: 'Only print the address' },
      name: {
        kind: 'text',
        value: 'NAME',
        help: 'A short name for the server, for --server and NAME.cde host names (default: from its address)',
      },
      force: { kind: 'flag', help: 'Sign in again although a valid login exists' },
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
    summary: 'Sign out, and revoke the token that login made',
    details: 'Logins to other servers stay, and none of them becomes current by itself.',
    arguments: { url: { help: 'The server, by URL or name (default: the current one)', optional: true } },
    examples: [
      ['cde logout', 'of the current server'],
      ['cde logout work', 'of another one'],
    ],
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
  command({
    name: 'server list',
    aliases: ['server ls'],
    group,
    summary: 'List the servers that you are signed in to',
    details: 'The current one has a *. Needs no connection.',
    examples: [['cde server list', 'names, addresses, users, and how ssh names their workspaces']],
    load: () => import('./servers.ts').then((m) => m.list),
  }),
  command({
    name: 'server use',
    group,
    summary: 'Make a server the current one',
    details: 'For one command, use --server SERVER instead; for one shell, CDE_SERVER.',
    arguments: { server: { help: 'Its name or URL' } },
    examples: [
      ['cde server use work', 'commands, and WORKSPACE.cde in ssh, go there from now on'],
      ['cde --server work list', 'one command only'],
    ],
    load: () => import('./servers.ts').then((m) => m.use),
  }),
  command({
    name: 'server rename',
    group,
    summary: 'Give a server another short name',
    details: 'The name is local to this machine. Host names in ssh change with it.',
    arguments: { server: { help: 'Its name or URL' }, name: { help: 'The new name' } },
    examples: [['cde server rename local laptop', 'web.laptop.cde instead of web.local.cde']],
    load: () => import('./servers.ts').then((m) => m.rename),
  }),
];
