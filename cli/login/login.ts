import { spawn } from 'node:child_process';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { readSecrets } from '../ask.ts';
import { changeConfig, type Login, readConfig, serverUrl } from '../config.ts';
import { localUrl, openClient } from '../connection.ts';
import type { Context } from '../context.ts';
import { getUser, pollCliLogin, startCliLogin } from '../endpoints.ts';
import { exitCodes } from '../exit-codes.ts';
import { Failure, toFailure } from '../failure.ts';
import { clean } from '../output.ts';

export async function login(
  context: Context,
  input: { url: string | undefined; token: string | true | undefined; browser: boolean },
): Promise<number | undefined> {
  const { out, env } = context;
  const url = whichServer(context, input.url);
  const made = input.token === undefined ? await throughBrowser(context, url, input.browser) : null;
  const token =
    made ??
    (typeof input.token === 'string' ? input.token : (await readSecrets(context, 'Token'))[0]!).trim();
  const client = openClient({ url, token, signal: context.signal, note: out.note });
  const user = await client.call(getUser, { params: { user: 'me' } });
  await storeLogin(env, url, { token, username: user.username, source: made ? 'browser' : 'given' });
  if (out.json) out.printJson(user);
  else out.print(`Signed in to ${url} as ${user.username} (${user.role}).`);
  return undefined;
}

/** Keeps a login and makes its server the current one. */
export function storeLogin(env: NodeJS.ProcessEnv, url: string, login: Login): Promise<void> {
  return changeConfig(env, (config) => {
    config.servers[url] = login;
    config.current = url;
  });
}

function whichServer(context: Context, named: string | undefined): string {
  if (named !== undefined) return serverUrl(named);
  try {
    return context.server().url;
  } catch (error) {
    if (error instanceof Failure && error.code === 'no-server') return localUrl;
    throw error;
  }
}

async function throughBrowser(context: Context, url: string, open: boolean): Promise<string> {
  const { out, signal } = context;
  const client = openClient({ url, signal, note: out.note });
  const started = await client.call(startCliLogin, { body: { hostname: hostname() } });
  // The server says what to open: a page, and never a file, a program or an option of the browser's command.
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
  // On stderr even with --json: without these two lines nobody could go on.
  process.stderr.write(
    `${opened ? 'Your browser opens. If it does not, open' : 'Open'} ${page.href}\nand check that it shows the code ${clean(started.userCode)}\n`,
  );
  for (;;) {
    await delay(started.pollEveryMs, undefined, { signal });
    const reply = await client
      .call(pollCliLogin, { body: { deviceCode: started.deviceCode } })
      .catch((error: unknown) => {
        // The server restarts, or the network is away for a moment: the person is still in the browser.
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

/** Opens the browser where there is a screen to show it on; false where there is none. */
function openBrowser(env: NodeJS.ProcessEnv, url: string): boolean {
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
  child.on('error', () => {}); // The address stands on the screen as well.
  child.unref();
  return true;
}

/** The current login of a server, for the commands that need none but use one. */
export function storedLogin(env: NodeJS.ProcessEnv, url: string): Login | undefined {
  return readConfig(env).servers[url];
}
