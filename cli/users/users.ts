import { randomUUID } from 'node:crypto';
import type { Role } from '@cde/api/endpoint.ts';
import type { User } from '@cde/api/identity.ts';
import { confirm, readSecrets } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { fields, line, type Result, result, table } from '../command/result.ts';
import {
  createUser,
  deleteUser,
  getUser,
  listUsers,
  setPassword,
  updateUser,
} from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { relative } from '../output/times.ts';

interface Fields {
  name: string | undefined;
  email: string | undefined;
  role: string | undefined;
}

const definedFields = (fields: Fields) => ({
  ...(fields.name !== undefined && { name: fields.name }),
  ...(fields.email !== undefined && { email: fields.email === '' ? null : fields.email }),
  ...(fields.role !== undefined && { role: fields.role as Role }),
});

export async function create(
  context: Context,
  input: Fields & { username: string; password: boolean },
): Promise<Result> {
  const client = await context.client();
  const password = input.password
    ? (await readSecrets(context, `Password for ${input.username}`))[0]
    : undefined;
  const user = await client.call(createUser, {
    body: { username: input.username, ...definedFields(input), ...(password !== undefined && { password }) },
    idempotencyKey: randomUUID(),
  });
  return result(user, () => [line(`The user ${user.username} is created (${user.role}).`)]);
}

export async function list(context: Context, input: { search: string | undefined }): Promise<Result> {
  const client = await context.client();
  const rows = await readAll((query) =>
    client.call(listUsers, { query: { ...query, search: input.search } }),
  );
  return result(rows, () => [
    table<User>(
      [
        { title: 'USERNAME', cell: (row, c) => c.bold(row.username) },
        { title: 'ROLE', cell: (row) => row.role },
        {
          title: 'STATUS',
          cell: (row, c) => (row.status === 'active' ? c.green(row.status) : c.red(row.status)),
        },
        { title: 'NAME', cell: (row) => clean(row.name) },
        { title: 'EMAIL', cell: (row) => clean(row.email ?? '') },
        { title: 'SEEN', cell: (row) => relative(row.lastSeenAt), plain: (row) => row.lastSeenAt ?? '' },
      ],
      rows,
      'No users match.',
    ),
  ]);
}

export async function show(context: Context, input: { user: string }): Promise<Result> {
  const client = await context.client();
  const user = await client.call(getUser, { params: { user: input.user } });
  return result(user, ({ moment }) => [
    fields([
      ['username', user.username],
      ['name', clean(user.name)],
      ['email', user.email && clean(user.email)],
      ['role', user.role],
      ['status', user.status],
      ['created', moment(user.createdAt)],
      ['seen', moment(user.lastSeenAt)],
      ['id', user.id],
    ]),
  ]);
}

export async function update(
  context: Context,
  input: Fields & { user: string; suspend: boolean; activate: boolean },
): Promise<Result> {
  if (input.suspend && input.activate) throw usage('--suspend and --activate exclude each other.');
  const body = {
    ...definedFields(input),
    ...(input.suspend && { status: 'suspended' as const }),
    ...(input.activate && { status: 'active' as const }),
  };
  if (Object.keys(body).length === 0)
    throw usage('There is nothing to change.', 'Add --role, --name, --email, --suspend or --activate.');
  const client = await context.client();
  const user = await client.call(updateUser, { params: { user: input.user }, body });
  return result(user, () => [line(`${user.username} is changed: ${user.role}, ${user.status}.`)]);
}

export async function setPasswordOf(context: Context, input: { user: string }): Promise<Result> {
  const client = await context.client();
  const me = await client.call(getUser, { params: { user: 'me' } });
  const own = [me.id, me.username, 'me'].includes(input.user);
  const body = own ? await readOwn(context) : { password: (await readSecrets(context, 'New password'))[0]! };
  await client.call(setPassword, { params: { user: input.user }, body });
  const username = own ? me.username : input.user;
  return result({ user: username, passwordSet: true }, () => [line(`The password of ${username} is set.`)]);
}

/** Your own password: users who signed in through a link or single sign-on have none yet. */
async function readOwn(context: Context): Promise<{ current?: string; password: string }> {
  const answers = await readSecrets(context, 'Current password (empty if you have none)', 'New password');
  const [current, password] = answers.length === 1 ? ['', answers[0]!] : answers;
  return { ...(current && { current }), password: password! };
}

export async function remove(context: Context, input: { user: string; yes: boolean }): Promise<Result> {
  const client = await context.client();
  if (!input.yes) await client.call(getUser, { params: { user: input.user } });
  await confirm(context, `Delete the user ${input.user}?`, input.yes);
  await client.call(deleteUser, { params: { user: input.user } });
  return result({ user: input.user, deleted: true }, () => [line(`The user ${input.user} is deleted.`)]);
}
