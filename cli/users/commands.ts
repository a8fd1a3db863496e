import { type Command, command } from '../command/command.ts';
import { roles } from '../command/statuses.ts';

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
    details: 'Without --password the user can sign in only through single sign-on, until a password is set.',
    arguments: { username: { help: 'Lower-case letters, digits and hyphens' } },
    options: {
      ...fields,
      password: { kind: 'flag', help: 'Set a password, which is prompted for or read from stdin' },
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
    options: { search: { kind: 'text', value: 'TEXT', help: 'Only users whose name contains this' } },
    examples: [['cde user list --search ada', 'role, status and last sign-in']],
    load: () => import('./users.ts').then((m) => m.list),
  }),
  command({
    name: 'user show',
    group,
    summary: 'Show a user',
    arguments: user,
    examples: [['cde user show ada', 'role, status, email and dates']],
    load: () => import('./users.ts').then((m) => m.show),
  }),
  command({
    name: 'user update',
    group,
    summary: 'Change the role, name, email or status of a user',
    arguments: user,
    options: {
      ...fields,
      suspend: { kind: 'flag', help: 'Block sign-in and reject the tokens of the user' },
      activate: { kind: 'flag', help: 'Reactivate a suspended user' },
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
    summary: 'Set the password of a user',
    details:
      'Prompts without echo. For your own password you need the current one. From a pipe, the new password is the first ' +
      'line; for your own, put the current one on the line before it.',
    arguments: user,
    examples: [
      ['cde user set-password me', 'your own password'],
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
    options: { yes: { kind: 'flag', short: 'y', help: 'Skip the confirmation' } },
    examples: [['cde user delete ada --yes', 'without asking']],
    load: () => import('./users.ts').then((m) => m.remove),
  }),
];
