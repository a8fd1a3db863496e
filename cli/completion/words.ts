import type { Client } from '@cde/api/client.ts';
import type { Context } from '../command/context.ts';
import {
  getUser,
  listClusters,
  listNodes,
  listTemplates,
  listUsers,
  listWorkspaces,
} from '../connection/endpoints.ts';
import { clean } from '../output/output.ts';
import { shortRef } from '../workspaces/reference.ts';

/** The user waits after pressing Tab, so give up after this time. */
const patienceMs = 1_500;
/** Paths need a connection to the workspace first. */
const pathPatienceMs = 5_000;
/** More do not fit on a terminal. */
const maxWords = 1_000;

type Call = <T>(work: (client: Client, signal: AbortSignal) => Promise<T>) => Promise<T>;

/** The characters of the names of users, templates, workspaces and nodes; other words are not passed to a shell. */
const nameRule = /^[a-z0-9][a-z0-9.-]{0,252}(\/[a-z0-9][a-z0-9.-]{0,252})?$/i;

/** Prints words for the completion scripts, one per line, and nothing on errors. */
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
      // Names with control characters are not offered.
      for (const path of await listPaths({ ...context, signal }, input.word ?? '', maxWords))
        if (clean(path) === path && !path.includes('\t')) context.out.print(path);
      return undefined;
    }
    const kinds: Record<string, (context: Context, call: Call) => Promise<string[]>> = {
      templates,
      users,
      workspaces,
      connectable,
      clusters,
      nodes,
    };
    const list = Object.hasOwn(kinds, input.kind) ? kinds[input.kind]! : undefined;
    for (const name of ((await list?.(context, call)) ?? []).slice(0, maxWords))
      if (nameRule.test(name)) context.out.print(name);
  } catch {
    // Without a server or login there is nothing to offer, and a message would garble the line.
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

async function clusters(_: Context, call: Call): Promise<string[]> {
  const { items } = await call((client, signal) => client.call(listClusters, { signal }));
  return items.map(({ name }) => name);
}

/** With its cluster if several have a node of that name. */
async function nodes(_: Context, call: Call): Promise<string[]> {
  const { items } = await call((client, signal) =>
    client.call(listNodes, { query: { limit: maxWords }, signal }),
  );
  const isUnique = (name: string) => items.filter((node) => node.name === name).length === 1;
  return items.map(({ cluster, provider, name }) =>
    isUnique(name) ? name : `${cluster ?? provider}/${name}`,
  );
}

/** No role can open sessions to other users' workspaces (docs/roles.md). */
async function connectable(_: Context, call: Call): Promise<string[]> {
  const { items } = await call((client, signal) =>
    client.call(listWorkspaces, { query: { limit: 500, owner: 'me' }, signal }),
  );
  return items.map(({ name }) => name);
}
