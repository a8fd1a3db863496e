import { stopBackground } from '../background/client.ts';
import type { Context } from '../command/context.ts';
import { line, note, type Result, result } from '../command/result.ts';
import { changeConfig, namedServer, readConfig, serverUrl, urlOfAlias } from '../config/config.ts';
import { revoke, storedLogin } from './login.ts';

export async function logout(context: Context, input: { url: string | undefined }): Promise<Result> {
  const { env } = context;
  const url = input.url === undefined ? context.server().url : whichServer(env, input.url);
  const login = storedLogin(env, url);
  if (login) {
    // Its sessions were opened with that login.
    await stopBackground({
      env,
      server: () => ({ url, token: login.token, login, isDefaultForSsh: false }),
    });
    await revoke(context, url, login);
  }
  let wasCurrent = false;
  let others: string[] = [];
  await changeConfig(env, (config) => {
    wasCurrent = config.current === url;
    delete config.servers[url];
    // Do not switch to another server: the next command could delete the wrong workspace.
    if (wasCurrent) config.current = null;
    others = Object.values(config.servers).map(({ alias }) => alias);
  });
  return result({ url, signedOut: login !== undefined }, () => [
    line(login ? `Signed out of ${url}.` : `You were not signed in to ${url}.`),
    wasCurrent &&
      others.length > 0 &&
      note(
        `No server is current now. You are still signed in to ${others.join(', ')}: cde server use ${others[0]}`,
      ),
  ]);
}

function whichServer(env: NodeJS.ProcessEnv, text: string): string {
  const config = readConfig(env);
  return urlOfAlias(config, text) ?? (text.includes('.') ? serverUrl(text) : namedServer(config, text));
}
