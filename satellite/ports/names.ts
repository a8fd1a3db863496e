/** The lower-case name in a Host header, without the port; '' if missing. ASCII only: `toLowerCase` turns the Kelvin sign into `k`. */
export const hostName = (header: string | undefined) =>
  (header ?? '')
    .replace(/[A-Z]/g, (letter) => letter.toLowerCase())
    .replace(/:\d*$/, '')
    .replace(/\.$/, '');

/** Path on a port's host name to which the dashboard redirects after sign-in. */
export const enterPath = '/.well-known/cde/enter';

/** True for paths on a port's host name that are never forwarded to the workspace, in any spelling. */
export const isReservedPath = (url: string) =>
  /^\/\.well-known\/cde(\/|$)/i.test(new URL(`http://port${url.startsWith('//') ? '/' : url}`).pathname);
