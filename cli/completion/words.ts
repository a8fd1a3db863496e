import type { Context } from '../context.ts';
import { getUser, listTemplates, listWorkspaces } from '../endpoints.ts';
import { shortRef } from '../workspaces/reference.ts';

/** A person waits with a finger on the Tab key; after that nothing is offered. */
const patienceMs = 1_500;

/** Prints names for the completion scripts; says nothing at all when it cannot. */
export async function words(context: Context, input: { kind: string }): Promise<number | undefined> {
  try {
    const client = await context.client({ patienceMs: 0 });
    const signal = AbortSignal.any([context.signal, AbortSignal.timeout(patienceMs)]);
    if (input.kind === 'templates') {
      const { items } = await client.call(listTemplates, { query: { limit: 200 }, signal });
      for (const { name } of items) context.out.print(name);
    } else if (input.kind === 'workspaces') {
      const [me, { items }] = await Promise.all([
        context.env.CDE_TOKEN
          ? client.call(getUser, { params: { user: 'me' }, signal }).then((user) => user.username)
          : context.server().login?.username,
        client.call(listWorkspaces, { query: { limit: 500 }, signal }),
      ]);
      for (const workspace of items) context.out.print(shortRef(workspace, me));
    }
  } catch {
    // No server, no login: completion has nothing to offer, and a message would spoil the line.
  }
  return undefined;
}
