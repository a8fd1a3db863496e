import type { Scope, Token } from '@cde/api/identity.ts';
import type { Context } from '../command/context.ts';
import { line, note, type Result, result, table } from '../command/result.ts';
import { scopes } from '../command/statuses.ts';
import { createToken, listTokens, revokeToken } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { relative } from '../output/times.ts';

export async function create(
  context: Context,
  input: { name: string; scope: string[]; days: number | undefined },
): Promise<Result> {
  const asked = input.scope.flatMap((text) => text.split(','));
  const unknown = asked.find((text) => !(scopes as readonly string[]).includes(text));
  if (unknown !== undefined)
    throw usage(`There is no scope ${JSON.stringify(unknown)}.`, `Choose from: ${scopes.join(', ')}.`);
  const client = await context.client();
  const made = await client.call(createToken, {
    body: {
      name: input.name,
      ...(asked.length > 0 && { scopes: asked as Scope[] }),
      ...(input.days !== undefined && { expiresInDays: input.days }),
    },
  });
  return result(made, () => [
    line(made.token),
    note(
      `This token is shown only once. It expires on ${made.info.expiresAt.slice(0, 10)}. Its id is ${made.info.id}.`,
    ),
  ]);
}

export async function list(context: Context): Promise<Result> {
  const client = await context.client();
  const rows = await readAll((query) => client.call(listTokens, { query }));
  return result(rows, () => [
    table<Token>(
      [
        { title: 'ID', cell: (row) => row.id },
        { title: 'NAME', cell: (row, c) => c.bold(clean(row.name)) },
        { title: 'SCOPES', cell: (row) => row.scopes.join(',') },
        { title: 'USED', cell: (row) => relative(row.lastUsedAt), plain: (row) => row.lastUsedAt ?? '' },
        { title: 'EXPIRES', cell: (row) => relative(row.expiresAt), plain: (row) => row.expiresAt },
      ],
      rows,
      'You have no tokens. Create one: cde token create --name NAME',
    ),
  ]);
}

export async function revoke(context: Context, input: { id: string }): Promise<Result> {
  const client = await context.client();
  await client.call(revokeToken, { params: { token: input.id } });
  return result({ id: input.id, revoked: true }, () => [line(`The token ${input.id} is revoked.`)]);
}
