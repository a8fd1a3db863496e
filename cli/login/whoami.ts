import type { ChosenServer } from '../connection.ts';
import type { Context } from '../context.ts';
import { getUser } from '../endpoints.ts';
import { fields, type Result, result } from '../result.ts';

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
