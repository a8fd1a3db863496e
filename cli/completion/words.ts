import type { Client } from '@cde/api/client.ts';
import type { Context } from '../context.ts';
import { getUser, listTemplates, listUsers, listWorkspaces } from '../endpoints.ts';
import { clean } from '../output.ts';
import { shortRef } from '../workspaces/reference.ts';

/** A person waits with a finger on the Tab key; after that nothing is offered. */
const patienceMs = 1_500;
/** A path needs a connection to the workspace first. */
const pathPatienceMs = 5_000;
/** More cannot be read on a terminal. */
const maxWords = 1_000;

type Call = <T>(work: (client: Client, signal: AbortSignal) => Promise<T>) => Promise<T>;

/** What names of users, templates and workspaces are made of; anything else is not offered to a shell. */
const nameRule = /^[a-z0-9][a-z0-9-]{0,62}(\/[a-z0-9][a-z0-9-]{0,62})?$/i;

/** Prints words for the completion scripts, one to a line; says nothing at all when it cannot. */
export async function words(
  context: Context,
  input: { kind: string; word: string | undefined },
): Promise<number | undefined> {
  const signal = AbortSignal.any([
    context.signal,
    AbortSignal.timeout(input.kind === 'paths' ? pathPatienceMs : patienceMs),
  ]);
  const call: Call = async (work) => work(await context.client({ patienceMs: 0 }), signal);
  try {
    if (input.kind === 'paths') {
      const { listPaths } = await import('./paths.ts');
      // A name that would not look like itself is not offered.
      for (const path of await listPaths({ ...context, signal }, input.word ?? '', maxWords))
        if (clean(path) === path && !path.includes('\t')) context.out.print(path);
      return undefined;
    }
    const kinds: Record<string, (context: Context, call: Call) => Promise<string[]>> = {
      templates,
      users,
      workspaces,
      connectable,
    };
    const list = Object.hasOwn(kinds, input.kind) ? kinds[input.kind]! : undefined;
    for (const name of ((await list?.(context, call)) ?? []).slice(0, maxWords))
      if (nameRule.test(name)) context.out.print(name);
  } catch {
    // No server, no login: completion has nothing to offer, and a message would spoil the line.
  }
  return undefined;
}

async function templates(_: Context, call: Call): Promise<string[]> {
  const { items } = await call((client, signal) =>
    client.call(listTemplates, { query: { limit: 200 }, signal }),
  );
  return items.map(({ name }) => name);
}

async function users(_: Context, call: Call): Promise<string[]> {
  const { items } = await call((client, signal) => client.call(listUsers, { query: { limit: 500 }, signal }));
  return items.map(({ username }) => username);
}

async function workspaces(context: Context, call: Call): Promise<string[]> {
  const [me, { items }] = await Promise.all([
    context.env.CDE_TOKEN
      ? call((client, signal) => client.call(getUser, { params: { user: 'me' }, signal })).then(
          (user) => user.username,
        )
      : context.server().login?.username,
    call((client, signal) => client.call(listWorkspaces, { query: { limit: 500 }, signal })),
  ]);
  return items.map((workspace) => shortRef(workspace, me));
}

/** Nobody opens a session to somebody else's workspace, whatever their role (docs/roles.md). */
async function connectable(_: Context, call: Call): Promise<string[]> {
  const { items } = await call((client, signal) =>
    client.call(listWorkspaces, { query: { limit: 500, owner: 'me' }, signal }),
  );
  return items.map(({ name }) => name);
}
