import { createHash, randomBytes } from 'node:crypto';

/** A new secret: `PREFIX_` and 256 random bits in base64url. It cannot be guessed, so an unsalted hash is enough to store it. */
export function makeSecret(
  prefix:
    | 'cde'
    | 'cde_agent'
    | 'cde_satellite'
    | 'cde_session'
    | 'cde_session_key'
    | 'cde_link'
    | 'cde_device'
    | 'cde_oidc'
    | 'cde_port',
): string {
  return `${prefix}_${randomBytes(32).toString('base64url')}`;
}

/** The hash that is stored in the database. */
export function hashSecret(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}
