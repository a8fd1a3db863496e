import { type Command, command } from '../command.ts';
import { scopes } from '../statuses.ts';

const group = 'Account:';

export const tokenCommands: readonly Command[] = [
  command({
    name: 'token create',
    group,
    summary: 'Create a token; it is shown once',
    options: {
      name: { kind: 'text', value: 'NAME', help: 'What it is for', required: true },
      scope: {
        kind: 'list',
        value: 'SCOPE',
        help: 'What it may do: all, read, or connect; may be repeated (default all)',
        completes: scopes,
      },
      days: { kind: 'number', value: 'DAYS', help: 'How long it lives, 1 to 365 (default 90)' },
    },
    examples: [
      ['cde token create --name ci --scope connect --days 30', 'the token alone goes to stdout'],
      ['TOKEN=$(cde token create --name ci)', 'in a script'],
    ],
    load: () => import('./tokens.ts').then((m) => m.create),
  }),
  command({
    name: 'token list',
    aliases: ['token ls'],
    group,
    summary: 'List your tokens',
    examples: [['cde token list', 'with their last use; never the tokens themselves']],
    load: () => import('./tokens.ts').then((m) => m.list),
  }),
  command({
    name: 'token revoke',
    group,
    summary: 'Revoke a token',
    arguments: { id: { help: 'Its id, as `cde token list` shows it' } },
    examples: [['cde token revoke 01990000-0000-7000-8000-000000000000', 'it is refused from now on']],
    load: () => import('./tokens.ts').then((m) => m.revoke),
  }),
];
