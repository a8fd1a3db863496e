import type { Context } from '../context.ts';
import { getUser } from '../endpoints.ts';

export async function whoami(context: Context): Promise<number | undefined> {
  const { out } = context;
  const client = await context.client();
  const user = await client.call(getUser, { params: { user: 'me' } });
  if (out.json) out.printJson(user);
  else
    out.fields([
      ['user', user.username],
      ['role', user.role],
      ['email', user.email],
      ['server', client.url],
      ['login', context.env.CDE_TOKEN ? 'CDE_TOKEN' : (context.server().login?.source ?? null)],
    ]);
  return undefined;
}
