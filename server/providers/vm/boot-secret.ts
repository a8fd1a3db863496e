import { createHmac, timingSafeEqual } from 'node:crypto';

/**
 * What a virtual machine has in its user data instead of the agent's token. Everything in the machine, and everyone who can
 * read instances of the cloud account, can read user data. So the secret is worth the token only until the agent of the
 * build has registered, before which nothing of the developer runs.
 */
export const bootSecret = (token: string): string =>
  `cde_boot_${createHmac('sha256', token).update('boot secret').digest('base64url')}`;

export function isBootSecret(secret: string, token: string): boolean {
  const expected = Buffer.from(bootSecret(token));
  const given = Buffer.from(secret);
  return given.length === expected.length && timingSafeEqual(given, expected);
}
