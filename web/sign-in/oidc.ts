import { finishOidc, startOidc } from '@cde/api/identity.ts';
import { call } from '../client.ts';

/**
 * The keys of sign-ins that this browser has started, newest last. The provider's response must match one of them, so
 * that nobody can sign this browser in to their own account.
 */
const name = 'cde-oidc-keys';
/** Tabs that sign in at the same time. */
const maxKeys = 5;

function readKeys(): string[] {
  try {
    const keys: unknown = JSON.parse(localStorage.getItem(name) ?? '[]');
    return Array.isArray(keys) ? keys.filter((key) => typeof key === 'string') : [];
  } catch {
    return [];
  }
}

/** Starts a sign-in and navigates to the provider. `link`: links the identity to the signed-in user's account. */
export async function goToProvider(options: {
  returnTo?: string | undefined;
  link?: boolean;
}): Promise<void> {
  const { url, loginKey } = await call(startOidc, { body: options });
  localStorage.setItem(name, JSON.stringify([...readKeys(), loginKey].slice(-maxKeys)));
  location.assign(url);
}

/** Finishes a sign-in. `query`: the provider's response. */
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
