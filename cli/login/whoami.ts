import type { Context } from '../command/context.ts';
import { fields, type Result, result } from '../command/result.ts';
import type { ChosenServer } from '../connection/connection.ts';
import { getUser } from '../connection/endpoints.ts';

const serverText = ({ url, login }: ChosenServer) => (login ? `${login.alias}  ${url}` : url);

export async function whoami(context: Context): Promise<Result> {
  const client = await context.client();
  const user = await client.call(getUser, { params: { user: 'me' } });
  return result(user, () => [
    fields([
      ['user', user.username],
      ['role', user.role],
      ['email', user.email],
      ['server', serverText(context.server())],
      ['login', context.env.CDE_TOKEN ? 'CDE_TOKEN' : (context.server().login?.source ?? null)],
    ]),
  ]);
}
