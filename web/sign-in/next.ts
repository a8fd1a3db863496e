/**
 * Where to go after signing in, if it is a path of this dashboard; anything else (another site, `//host`,
 * `/\host`, the sign-in page itself) is dropped, so that a crafted link cannot send people elsewhere.
 */
export function localPath(value: unknown): string | undefined {
  if (typeof value !== 'string' || !/^\/(?![/\\])/.test(value) || /[\p{Cc}\\]/u.test(value)) return undefined;
  const path = value.split(/[?#]/, 1)[0];
  return path === '/sign-in' || path?.startsWith('/api/') ? undefined : value;
}

/** The code of a one-time link, which sits behind `#` so that no server log or referrer holds it. */
export function codeOf(hash: string): string | null {
  return new URLSearchParams(hash.replace(/^#/, '')).get('code');
}

/** The OIDC provider's response, which the server also puts behind `#`. */
export function oidcQueryOf(hash: string): string | null {
  return new URLSearchParams(hash.replace(/^#/, '')).get('oidc');
}
