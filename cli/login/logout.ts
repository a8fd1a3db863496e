import { stopBackground } from '../background/client.ts';
import { changeConfig, serverUrl } from '../config.ts';
import { openClient } from '../connection.ts';
import type { Context } from '../context.ts';
import { signOut } from '../endpoints.ts';
import { toFailure } from '../failure.ts';
import { storedLogin } from './login.ts';

export async function logout(
  context: Context,
  input: { url: string | undefined },
): Promise<number | undefined> {
  const { out, env, signal } = context;
  const url = input.url === undefined ? context.server().url : serverUrl(input.url);
  const login = storedLogin(env, url);
  if (login && login.source !== 'given') {
    try {
      await openClient({ url, token: login.token, signal }).call(signOut, {});
    } catch (error) {
      const failure = toFailure(error);
      // A token that is refused is as good as revoked; anything else the person should know.
      if (!['token-invalid', 'token-expired', 'sign-in-required'].includes(failure.code))
        out.note(`The token could not be revoked (${failure.message}) It stays good until it expires.`);
    }
  }
  // Its sessions were opened by that login.
  await stopBackground({ env, server: () => ({ url, token: login?.token, login }) });
  await changeConfig(env, (config) => {
    delete config.servers[url];
    if (config.current === url) config.current = Object.keys(config.servers)[0] ?? null;
  });
  if (out.json) out.printJson({ url, signedOut: login !== undefined });
  else out.print(login ? `Signed out of ${url}.` : `You were not signed in to ${url}.`);
  return undefined;
}
