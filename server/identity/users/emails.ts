import { domainToASCII } from 'node:url';

/** The longest address that mail can be delivered to (RFC 5321). */
const maxLength = 254;

/**
 * Lower-cases only A to Z. `toLowerCase` and SQL's `lower` also map the Kelvin sign (U+212A) to `k`, which would make two
 * different names or addresses equal.
 */
export const lowerAscii = (text: string): string => text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());

/**
 * The canonical form in which addresses are stored and compared, or null if the address has none. The part before the @
 * must be ASCII: beyond it, mail servers and Unicode disagree on which mailboxes are the same. Domains are in DNS form
 * (`xn--…`), and those with compatibility characters (`ｅxample`, the Kelvin sign) are rejected.
 */
export function normalizeEmail(text: string): string | null {
  const at = text.lastIndexOf('@');
  const local = text.slice(0, Math.max(at, 0));
  const domain = text.slice(at + 1);
  if (!/^[!-?A-~]+$/.test(local) || domain.normalize('NFKC') !== domain) return null;
  const host = /^[!-~]+$/.test(domain) ? lowerAscii(domain) : domainToASCII(domain);
  if (!/^[a-z0-9-]+(\.[a-z0-9-]+)*$/.test(host)) return null;
  const email = `${lowerAscii(local)}@${host}`;
  return email.length <= maxLength ? email : null;
}
