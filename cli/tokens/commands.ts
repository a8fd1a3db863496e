import { type Command, command } from '../command/command.ts';
import { scopes } from '../command/statuses.ts';

const group = 'Account:';

export const tokenCommands: readonly Command[] = [
  command({
    name: 'token create',
    group,
    summary: 'Create an API token',
    details: 'The token is shown only once.',
    options: {
      name: { kind: 'text', value: 'NAME', help: 'What it is for', required: true },
      scope: {
        kind: 'list',
        value: 'SCOPE',
        help: 'Permissions: all, read or connect (default all, repeatable)',
        completes: scopes,
      },
      days: { kind: 'number', value: 'DAYS', help: 'Lifetime in days, 1 to 365 (default 90)' },
    },
    examples: [
      ['cde token create --name ci --scope connect --days 30', 'prints the token'],
      ['TOKEN=$(cde token create --name ci)', 'in a script'],
    ],
    load: () => import('./tokens.ts').then((m) => m.create),
  }),
  command({
    name: 'token list',
    aliases: ['token ls'],
    group,
    summary: 'List your tokens',
    examples: [['cde token list', 'names, scopes and last use']],
    load: () => import('./tokens.ts').then((m) => m.list),
  }),
  command({
    name: 'token revoke',
    group,
    summary: 'Revoke a token',
    arguments: { id: { help: 'Its id, as `cde token list` shows it' } },
    examples: [['cde token revoke 01990000-0000-7000-8000-000000000000', 'the token stops working at once']],
    load: () => import('./tokens.ts').then((m) => m.revoke),
  }),
];
