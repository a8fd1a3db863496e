import { domainToASCII } from 'node:url';

/** RFC 5321: a longer address cannot be delivered to. */
const maxLength = 254;

/**
 * Lower case for A to Z alone. `toLowerCase` and SQL's `lower` fold more: the Kelvin sign (U+212A) to `k`, so two different
 * names or addresses become one.
 */
export const lowerAscii = (text: string): string => text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());

/**
 * The one form in which addresses are stored and compared; null for an address that is not to be compared. The part before
 * the @ is ASCII: outside it, what a mail server takes for the same mailbox and what Unicode takes for the same text differ.
 * Domains are as DNS has them (`xn--…`); one with compatibility characters (`ｅxample`, the Kelvin sign) is not taken.
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
