import { usernamePattern } from '@cde/api/names.ts';

const longest = 32;
// `me` means oneself in paths; the others are what the audit log calls those who are no users.
const reserved = new Set(['me', 'system', 'agent', 'anonymous']);

export const isReserved = (username: string): boolean => reserved.has(username);

/** `text` (a login name, an address, a person's name) made a valid username, or null when nothing is left of it. */
export function makeUsername(text: string): string | null {
  const made = text
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/@.*$/, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^[^a-z]+/, '')
    .slice(0, longest)
    .replace(/-+$/, '');
  return usernamePattern.test(made) && !isReserved(made) ? made : null;
}

/** `username`, `username-2`, `username-3`, …: candidates until one is free, each valid. */
export function* numbered(username: string): Generator<string> {
  yield username;
  for (let number = 2; ; number++) {
    const suffix = `-${number}`;
    yield `${username.slice(0, longest - suffix.length).replace(/-+$/, '')}${suffix}`;
  }
}
