import { finishOidc, startOidc } from '@cde/api/identity.ts';
import { call } from '../client.ts';

/**
 * The keys of sign-ins that this browser has started, newest last. One of them finishes the sign-in: an answer of the provider
 * that another browser asked for matches none, so nobody can sign this browser in to an account of theirs.
 */
const name = 'cde-oidc-keys';
/** Tabs that sign in at once. */
const maxKeys = 5;

function readKeys(): string[] {
  try {
    const keys: unknown = JSON.parse(localStorage.getItem(name) ?? '[]');
    return Array.isArray(keys) ? keys.filter((key) => typeof key === 'string') : [];
  } catch {
    return [];
  }
}

/** Starts a sign-in and leaves for the provider. `link`: its identity is linked to the account of the signed-in user. */
export async function goToProvider(options: {
  returnTo?: string | undefined;
  link?: boolean;
}): Promise<void> {
  const { url, loginKey } = await call(startOidc, { body: options });
  localStorage.setItem(name, JSON.stringify([...readKeys(), loginKey].slice(-maxKeys)));
  location.assign(url);
}

/** Finishes a sign-in. `query`: what the provider sent the browser back with. */
export async function comeFromProvider(query: string) {
  const keys = readKeys();
  let failure: unknown;
  // Several tabs may have started one; the server knows which key belongs to the answer.
  for (const loginKey of [...keys].reverse().concat(keys.length === 0 ? ['none'] : []))
    try {
      const done = await call(finishOidc, { body: { query, loginKey } });
      localStorage.setItem(name, JSON.stringify(readKeys().filter((key) => key !== loginKey)));
      return done;
    } catch (error) {
      failure = error;
    }
  throw failure;
}
