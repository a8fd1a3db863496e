/** The name in a Host header, without port and case (of ASCII: `toLowerCase` makes `k` of the Kelvin sign too); '' where it is none. */
export const hostName = (header: string | undefined) =>
  (header ?? '')
    .replace(/[A-Z]/g, (letter) => letter.toLowerCase())
    .replace(/:\d*$/, '')
    .replace(/\.$/, '');

/** On a port's own name, where a browser comes back from the dashboard; nothing under that reaches a workspace. */
export const enterPath = '/.well-known/cde/enter';

/** True of the paths on a port's own name that are ours, however they are written. */
export const isReservedPath = (url: string) =>
  /^\/\.well-known\/cde(\/|$)/i.test(new URL(`http://port${url.startsWith('//') ? '/' : url}`).pathname);
