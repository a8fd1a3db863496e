import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Client } from '@cde/api/client.ts';
import type { User } from '@cde/api/identity.ts';
import { followPatienceMs, waitForBuild } from '../builds/follow.ts';
import type { Context } from '../command/context.ts';
import { line, result } from '../command/result.ts';
import { changeConfig, readConfig, serverUrl } from '../config/config.ts';
import { openClient } from '../connection/connection.ts';
import {
  createOneTimeLink,
  createToken,
  createWorkspace,
  getUser,
  listTemplates,
  listWorkspaces,
  publishTemplate,
  signInOnce,
} from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import { currentServerNote, storeLogin } from '../login/login.ts';
import type { Colors } from '../output/output.ts';
import { render } from '../output/render.ts';
import { readTemplateFolder } from '../templates/folder.ts';

/** The server's message to its parent once it listens. */
export interface Ready {
  type: 'ready';
  url: string;
  dataDir: string;
  /** Null when the first start was completed before. */
  firstStart: { code: string; username: string } | null;
  /** Whether it has a Docker engine for workspaces. */
  docker: boolean;
}

const starterFolder = (name: string) => fileURLToPath(new URL(`../../templates/${name}`, import.meta.url));
const starterWorkspace = 'hello';
/** The maximum lifetime of a token, because this one belongs to the server's own machine. */
const tokenDays = 365;

/**
 * Sets up a new server: signs in, publishes a template, creates a workspace. Each step is skipped if it is already
 * done, so after a kill at any point the next start completes the rest.
 */
export async function completeFirstStart(context: Context, ready: Ready): Promise<void> {
  const { out } = context;
  const url = serverUrl(ready.url);
  const client = await signIn(context, url, ready.firstStart);
  const me = await client.call(getUser, { params: { user: 'me' } });

  const templates = await client.call(listTemplates, { query: { limit: 1 } });
  if (templates.items.length === 0) {
    // `local` last: an interrupted first start repeats what is missing.
    for (const name of [...(ready.docker ? ['docker'] : []), 'local']) {
      out.note(`Publishing the template ${name}.`);
      await client.call(publishTemplate, {
        body: { files: readTemplateFolder(starterFolder(name)), message: 'The starter template' },
        idempotencyKey: randomUUID(),
      });
    }
  }

  const mine = await client.call(listWorkspaces, { query: { owner: 'me', limit: 1 } });
  const [workspace = await createStarter(context, client)] = mine.items;
  const build = workspace?.latestBuild;
  if (workspace && build && !build.finishedAt)
    // Report a failed start with its reason, but still print the address.
    await waitForBuild(context, client, workspace.name, build).catch((error) => {
      if (context.signal.aborted) throw error;
      out.fail(toFailure(error));
    });

  await changeConfig(context.env, (config) => {
    const login = config.servers[url];
    if (login) delete login.firstStart;
  });
  const link = await client.call(createOneTimeLink, {});
  await printWelcome(context, {
    url,
    link: link.url,
    user: me,
    workspaces: workspace ? [workspace.name] : [],
  });
}

async function createStarter(context: Context, client: Client) {
  const { items } = await client.call(listTemplates, { query: { limit: 100 } });
  // An administrator may have replaced the starter template before this step.
  if (!items.some((template) => template.name === 'local')) return undefined;
  context.out.note(`Creating the workspace ${starterWorkspace}.`);
  try {
    return await client.call(createWorkspace, {
      body: { name: starterWorkspace, template: 'local' },
      idempotencyKey: randomUUID(),
    });
  } catch (error) {
    // A server for other machines has no local workspaces on purpose.
    if (toFailure(error).code !== 'provider-not-available') throw error;
    context.out.note('Workspaces on this machine are off here, so none was created.');
    return undefined;
  }
}

/** The stored login if it is valid; otherwise exchanges the one-time code for one. */
async function signIn(context: Context, url: string, firstStart: Ready['firstStart']): Promise<Client> {
  const { signal, env, out } = context;
  const open = (token: string) =>
    openClient({ url, token, signal, patienceMs: followPatienceMs, note: out.note });
  const stored = readConfig(env).servers[url];
  if (stored) {
    const client = open(stored.token);
    const state = await probe(client);
    if (state) return client;
  }
  if (!firstStart)
    throw new Failure('sign-in-required', `You are not signed in to ${url}.`, {
      exitCode: exitCodes.permission,
      hint: `Run: cde login ${url}`,
    });
  const session = await exchangeCode(url, firstStart.code, signal);
  const browser = openClient({ url, signal, headers: { ...session, origin: new URL(url).origin } });
  const { token } = await browser.call(createToken, {
    body: { name: `cde on ${hostname()}`.slice(0, 80), scopes: ['all'], expiresInDays: tokenDays },
  });
  const current = await storeLogin(env, url, {
    token,
    username: firstStart.username,
    source: 'first-start',
    firstStart: 'unfinished',
  });
  const changed = currentServerNote(current);
  if (changed) context.out.note(changed);
  return open(token);
}

/** Exchanges the code; returns the headers that a browser of this session would send. */
async function exchangeCode(url: string, code: string, signal: AbortSignal): Promise<Record<string, string>> {
  let cookie = '';
  const client = openClient({
    url,
    signal,
    onReply: (reply) => {
      cookie = reply.cookies.map((line) => line.split(';', 1)[0]!).join('; ');
    },
  });
  const { sessionKey } = await client.call(signInOnce, { body: { code } });
  return { cookie, 'x-cde-session-key': sessionKey };
}

/** The user of a client; null if its token is rejected. */
async function probe(client: Client): Promise<User | null> {
  try {
    return await client.call(getUser, { params: { user: 'me' } });
  } catch (error) {
    if (toFailure(error).exitCode === exitCodes.permission) return null;
    throw error;
  }
}

/** A later start: prints the address, the user and the running workspaces. Completes an interrupted first start. */
export async function welcomeBack(context: Context, ready: Ready): Promise<void> {
  const { signal, env } = context;
  const url = serverUrl(ready.url);
  const login = readConfig(env).servers[url];
  if (login?.firstStart === 'unfinished') return completeFirstStart(context, ready);
  const client = login && openClient({ url, token: login.token, signal, patienceMs: 10_000 });
  const me = client && (await probe(client));
  if (!client || !me) {
    await printWelcome(context, { url, link: null, user: null, workspaces: [] });
    return;
  }
  const { items } = await client.call(listWorkspaces, { query: { owner: 'me', limit: 100 } });
  await printWelcome(context, {
    url,
    link: null,
    user: me,
    workspaces: items.map(({ name, status }) => `${name} (${status})`),
  });
}

interface Welcome {
  url: string;
  link: string | null;
  user: User | null;
  workspaces: string[];
}

async function printWelcome(context: Context, told: Welcome): Promise<void> {
  const { url, link, user, workspaces } = told;
  const data = { url, oneTimeLink: link, username: user?.username ?? null, workspaces };
  return render(
    context.out,
    result(data, ({ colors }) => welcomeLines(told, colors).map(line)),
  );
}

function welcomeLines(told: Welcome, c: Colors): string[] {
  const lines: string[] = ['', `  ${c.bold('cde')} is at   ${c.cyan(told.url)}`];
  if (told.link) {
    lines.push(`  sign in at  ${c.cyan(told.link)}`, c.dim('              works once, for 10 minutes'));
  } else {
    lines.push(
      told.user
        ? `  signed in   cde here, as ${told.user.username} (${told.user.role})`
        : `  signed in   no; run: ${c.bold(`npx cde login ${told.url}`)}`,
      `  browser     sign in at ${c.cyan(`${told.url}/sign-in`)}, or make a one-time link:`,
      `              ${c.bold('npx cde server sign-in-link')}${c.dim('   (with the same settings as this server)')}`,
    );
  }
  if (!told.link && told.user)
    lines.push(`  workspaces  ${told.workspaces.length > 0 ? told.workspaces.join(', ') : 'none'}`);
  if (told.link) {
    const [first] = told.workspaces;
    const next = first
      ? [`npx cde ssh ${first}`, 'npx cde create web --template local', 'npx cde list']
      : ['npx cde template list', 'npx cde user create NAME', 'npx cde list'];
    lines.push('', '  Next, in another terminal:', ...next.map((command) => `    ${c.bold(command)}`));
  }
  lines.push('', c.dim('  Ctrl-C stops the server. Workspaces keep running.'), '');
  return lines;
}
