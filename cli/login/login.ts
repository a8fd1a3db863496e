import { spawn } from 'node:child_process';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { User } from '@cde/api/identity.ts';
import { readSecrets } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { line, note, type Result, result } from '../command/result.ts';
import {
  type Config,
  changeConfig,
  type Login,
  readConfig,
  serverUrl,
  urlOfAlias,
} from '../config/config.ts';
import { aliasPattern, freeAlias } from '../config/server-alias.ts';
import { localUrl, openClient } from '../connection/connection.ts';
import { getUser, pollCliLogin, signOut, startCliLogin } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure, usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';

interface LoginInput {
  url: string | undefined;
  token: string | true | undefined;
  name: string | undefined;
  browser: boolean;
  force: boolean;
}

export async function login(context: Context, input: LoginInput): Promise<Result> {
  const { out, env } = context;
  const url = whichServer(context, input.url);
  checkName(readConfig(env), url, input.name);
  const before = storedLogin(env, url);
  if (before && input.token === undefined && !input.force) {
    const user = await findUser(context, url, before.token);
    if (user) {
      const current = await storeLogin(env, url, { ...before, username: user.username }, input.name);
      const changed = currentServerNote(current);
      return result(user, () => [
        line(`You are already signed in to ${url} as ${user.username} (${user.role}).`),
        changed && note(changed),
        note(`To sign in again, for example as another user: cde login ${url} --force`),
      ]);
    }
  }
  const made = input.token === undefined ? await throughBrowser(context, url, input.browser) : null;
  const token =
    made ??
    (typeof input.token === 'string' ? input.token : (await readSecrets(context, 'Token'))[0]!).trim();
  const client = openClient({ url, token, signal: context.signal, note: out.note });
  const user = await client.call(getUser, { params: { user: 'me' } });
  const current = await storeLogin(
    env,
    url,
    { token, username: user.username, source: made ? 'browser' : 'given' },
    input.name,
  );
  if (before && before.token !== token) await revoke(context, url, before);
  const changed = currentServerNote(current);
  return result(user, () => [
    line(`Signed in to ${url} as ${user.username} (${user.role}).`),
    changed && note(changed),
  ]);
}

/** The current server after a login, and the one before. */
export interface CurrentServer {
  alias: string;
  url: string;
  before: { url: string; alias: string } | null;
}

/** Stores a login and makes its server the current one. */
export async function storeLogin(
  env: NodeJS.ProcessEnv,
  url: string,
  login: Omit<Login, 'alias'>,
  name?: string,
): Promise<CurrentServer> {
  let current: CurrentServer | undefined;
  await changeConfig(env, (config) => {
    const alias = name?.toLowerCase() ?? config.servers[url]?.alias ?? freeAlias(config, url);
    const previous = config.current === null || config.current === url ? null : config.current;
    const known = previous === null ? undefined : config.servers[previous];
    current = { alias, url, before: previous && known ? { url: previous, alias: known.alias } : null };
    config.servers[url] = { ...login, alias };
    config.current = url;
  });
  return current!;
}

/** Always reports a change of the current server, because the next command goes there. */
export function currentServerNote({ alias, url, before }: CurrentServer): string | null {
  if (!before) return null;
  return `Commands now use ${alias} (${url}). To switch back: cde server use ${before.alias}`;
}

/** Throws a usage error if the name cannot be an alias, or is another server's. */
export function checkName(config: Config, url: string, name: string | undefined): void {
  if (name === undefined) return;
  if (!aliasPattern.test(name.toLowerCase()))
    throw usage(
      `${JSON.stringify(name)} cannot be the name of a server.`,
      'Use at most 32 letters, digits and single hyphens, such as: work',
    );
  const other = urlOfAlias(config, name);
  if (other !== undefined && other !== url)
    throw usage(
      `${other} is already named ${name}.`,
      'Choose another name, or rename that one: cde server rename',
    );
}

/** The user of a token; null if the server rejects it. */
async function findUser(context: Context, url: string, token: string): Promise<User | null> {
  try {
    const client = openClient({ url, token, signal: context.signal, note: context.out.note });
    return await client.call(getUser, { params: { user: 'me' } });
  } catch (error) {
    if (toFailure(error).exitCode === exitCodes.permission) return null;
    throw error;
  }
}

/** Revokes a token that cde created, and reports a failure. */
export async function revoke(context: Context, url: string, login: Login): Promise<void> {
  if (login.source === 'given') return;
  try {
    await openClient({ url, token: login.token, signal: context.signal }).call(signOut, {});
  } catch (error) {
    const failure = toFailure(error);
    // A rejected token needs no revoking; other errors are reported.
    if (!['token-invalid', 'token-expired', 'sign-in-required'].includes(failure.code))
      context.out.note(
        `The previous token could not be revoked (${failure.message}) It stays valid until it expires.`,
      );
  }
}

function whichServer(context: Context, named: string | undefined): string {
  if (named !== undefined) return urlOfAlias(readConfig(context.env), named) ?? serverUrl(named);
  try {
    return context.server().url;
  } catch (error) {
    const config = readConfig(context.env);
    const isFirst = Object.keys(config.servers).length === 0;
    if (error instanceof Failure && error.code === 'no-server' && isFirst) return localUrl;
    throw error;
  }
}

async function throughBrowser(context: Context, url: string, open: boolean): Promise<string> {
  const { out, signal } = context;
  const client = openClient({ url, signal, note: out.note });
  const started = await client.call(startCliLogin, { body: { hostname: hostname() } });
  // The URL comes from the server: open only web pages, never files, programs or options of the browser's command.
  const page = URL.parse(started.url);
  if (!page || !/^https?:$/.test(page.protocol))
    throw new Failure(
      'not-a-cde-server',
      `${url} names ${JSON.stringify(started.url)} as the page to sign in at.`,
      {
        exitCode: exitCodes.unreachable,
        hint: 'Check the address of the server.',
      },
    );
  const opened = open && !out.json && openBrowser(context.env, page.href);
  // On stderr even with --json, because the user needs these two lines to continue.
  process.stderr.write(
    `${opened ? 'Your browser opens. If it does not, open' : 'Open'} ${page.href}\nand check that it shows the code ${clean(started.userCode)}\n`,
  );
  for (;;) {
    await delay(started.pollEveryMs, undefined, { signal });
    const reply = await client
      .call(pollCliLogin, { body: { deviceCode: started.deviceCode } })
      .catch((error: unknown) => {
        // The server restarts or the network is down for a moment while the user is in the browser.
        if (toFailure(error).exitCode === exitCodes.unreachable) return null;
        throw error;
      });
    if (reply?.status === 'approved' && reply.token) return reply.token;
    if (reply?.status === 'expired' || Date.now() > Date.parse(started.expiresAt) + 60_000)
      throw new Failure('login-expired', 'The login was not allowed in time.', {
        exitCode: exitCodes.permission,
        hint: `Try again: cde login ${url}`,
      });
  }
}

/** Opens the URL with the desktop's handler; false if there is no display. */
export function openBrowser(env: NodeJS.ProcessEnv, url: string): boolean {
  if (env.SSH_CONNECTION || !process.stderr.isTTY) return false;
  const command = env.BROWSER
    ? env.BROWSER
    : process.platform === 'darwin'
      ? 'open'
      : env.WSL_DISTRO_NAME
        ? 'wslview'
        : env.DISPLAY || env.WAYLAND_DISPLAY
          ? 'xdg-open'
          : null;
  if (command === null) return false;
  const child = spawn(command, [url], { stdio: 'ignore', detached: true });
  child.on('error', () => {}); // The URL is also printed.
  child.unref();
  return true;
}

/** The stored login of a server, for commands that can do without one. */
export function storedLogin(env: NodeJS.ProcessEnv, url: string): Login | undefined {
  return readConfig(env).servers[url];
}
