import { type Command, command } from '../command.ts';
import { roles } from '../statuses.ts';

const group = 'Administration:';
const user = { user: { help: 'A username, or `me`', completes: 'users' } } as const;
const fields = {
  name: { kind: 'text', value: 'NAME', help: 'Full name' },
  email: { kind: 'text', value: 'EMAIL', help: 'Email address' },
  role: { kind: 'text', value: 'ROLE', help: roles.join(', '), choices: roles, completes: roles },
} as const;

export const userCommands: readonly Command[] = [
  command({
    name: 'user create',
    group,
    summary: 'Create a user',
    details: 'Without --password the user can sign in by single sign-on only, until a password is set.',
    arguments: { username: { help: 'Lower-case letters, digits and hyphens' } },
    options: {
      ...fields,
      password: { kind: 'flag', help: 'Give a password: asked for, or read from stdin' },
    },
    examples: [
      ['cde user create ada --name "Ada Lovelace" --email ada@example.com', 'a member'],
      ['cde user create ci --role member --password < password.txt', 'with a password'],
    ],
    load: () => import('./users.ts').then((m) => m.create),
  }),
  command({
    name: 'user list',
    aliases: ['user ls'],
    group,
    summary: 'List users',
    options: { search: { kind: 'text', value: 'TEXT', help: 'Only those whose name holds it' } },
    examples: [['cde user list --search ada', 'role, status, last seen']],
    load: () => import('./users.ts').then((m) => m.list),
  }),
  command({
    name: 'user show',
    group,
    summary: 'Show a user',
    arguments: user,
    examples: [['cde user show ada', 'all that is known of them']],
    load: () => import('./users.ts').then((m) => m.show),
  }),
  command({
    name: 'user update',
    group,
    summary: "Change a user's role, name or email; suspend or activate",
    arguments: user,
    options: {
      ...fields,
      suspend: { kind: 'flag', help: 'They may no longer sign in, and their tokens are refused' },
      activate: { kind: 'flag', help: 'The reverse' },
    },
    examples: [
      ['cde user update ada --role template-admin', 'another role'],
      ['cde user update ada --suspend', 'lock the account'],
    ],
    load: () => import('./users.ts').then((m) => m.update),
  }),
  command({
    name: 'user set-password',
    group,
    summary: 'Set a password; one’s own with the current one',
    details:
      'Asked for without echo. From a pipe: the new password on the first line, for oneself the current one before it.',
    arguments: user,
    examples: [
      ['cde user set-password me', 'your own'],
      ['cde user set-password ada < password.txt', "another user's, as an owner"],
    ],
    load: () => import('./users.ts').then((m) => m.setPasswordOf),
  }),
  command({
    name: 'user delete',
    aliases: ['user rm'],
    group,
    summary: 'Delete a user who has no workspaces',
    arguments: user,
    options: { yes: { kind: 'flag', short: 'y', help: 'Do not ask' } },
    examples: [['cde user delete ada --yes', 'without asking']],
    load: () => import('./users.ts').then((m) => m.remove),
  }),
];
