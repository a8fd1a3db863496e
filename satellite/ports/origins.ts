/**
 * A program in a workspace sees consistent local addresses: it is `http://localhost:PORT`, and its own pages come from
 * there. Programs compare Origin and Referer with Host (Django, Jupyter, webpack, Streamlit, Go), with X-Forwarded-Host
 * (code-server, Next, Rails) or with their own name and scheme, and many development servers refuse any other name
 * than localhost. So the public origin is translated to the local one on the way in, and back on the way out, and no
 * header that a program compares carries the public name. docs/ports.md has the reasoning.
 *
 * Only origins of the port itself and of other ports of the same workspace are translated, each to its own port. All
 * other origins are left alone.
 */

/** A port's local and public address. */
export interface PortAddress {
  port: number;
  /** The public origin: `https://8080--web--ada.dev.example.com`; by path the dashboard's. */
  origin: string;
  /** By path: the prefix of the port's paths, without a trailing slash; null by name. */
  prefix: string | null;
  /** By path: the request carries a pass, which only the port's own pages have. */
  hasPass?: boolean;
}

/** The maximum length of a DNS label. */
const maxLabel = 63;
const portName = /^(https?:\/\/)([1-9]\d{0,4})(--([^.]+)\..+)$/;
const loopbackAuthority = /^(?:localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0)(?::([1-9]\d{0,4}))?$/i;

export const localOrigin = (port: number) => `http://localhost:${port}`;

/** The port of this workspace with the given public origin, or null. */
function portOfOrigin(origin: string, address: PortAddress): number | null {
  if (address.prefix !== null) return null;
  const asked = origin.toLowerCase();
  if (asked === address.origin) return address.port;
  const own = portName.exec(address.origin);
  const other = portName.exec(asked);
  if (!own || !other || own[1] !== other[1] || own[3] !== other[3]) return null;
  const port = Number(other[2]);
  return port <= 65535 ? port : null;
}

/** The public origin of a port of this workspace, or null if it has none. */
function publicOrigin(port: number, address: PortAddress): string | null {
  if (address.prefix !== null || port > 65535) return null;
  if (port === address.port) return address.origin;
  const own = portName.exec(address.origin);
  if (!own || `${port}--${own[4]}`.length > maxLabel) return null;
  return `${own[1]}${port}${own[3]}`;
}

/** The Origin header for the program. Origins outside this workspace stay unchanged. */
export function toLocalOrigin(origin: string, address: PortAddress): string {
  // By path the page's origin is opaque (`null`). Other pages can be opaque too, but have no pass.
  if (address.prefix !== null)
    return origin === 'null' && address.hasPass ? localOrigin(address.port) : origin;
  const port = portOfOrigin(origin, address);
  return port === null ? origin : localOrigin(port);
}

/** The Referer header for the program; null to remove it. */
export function toLocalReferer(referer: string, address: PortAddress): string | null {
  // It may contain a pass, or the address of a dashboard page.
  if (address.prefix !== null) return null;
  const [, origin = '', rest = ''] = /^(https?:\/\/[^/?#\\]*)(.*)$/is.exec(referer) ?? [];
  const port = portOfOrigin(origin, address);
  return port === null ? referer : `${localOrigin(port)}${rest}`;
}

/** A URL in a response header for the browser: local addresses of this workspace's ports become public ones. */
export function toPublicUrl(url: string, address: PortAddress): string {
  const { origin, prefix } = address;
  const [, authority, rest = ''] = /^(?:https?:)?\/\/([^/?#\\]*)(.*)$/is.exec(url) ?? [];
  if (authority === undefined) return withPrefix(url, prefix);
  const isOwnOrigin = prefix !== null && url.slice(0, url.length - rest.length).toLowerCase() === origin;
  const loopback = loopbackAuthority.exec(authority);
  if (!loopback && !isOwnOrigin) return url;
  if (prefix !== null) {
    if (loopback && Number(loopback[1] ?? 80) !== address.port) return url;
    return rest.startsWith(`${prefix}/`) ? rest : `${prefix}${asPath(rest)}`;
  }
  const base = publicOrigin(Number(loopback?.[1] ?? (/^https:/i.test(url) ? 443 : 80)), address);
  return base === null ? url : `${base}${asPath(rest)}`;
}

const asPath = (rest: string) => rest.replace(/^(?!\/)/, '/');

function withPrefix(path: string, prefix: string | null): string {
  if (prefix === null || !/^\/(?![/\\])/.test(path) || path.startsWith(`${prefix}/`)) return path;
  return `${prefix}${path}`;
}

/** `Refresh: 5; url=…` */
export const toPublicRefresh = (value: string, address: PortAddress): string =>
  value.replace(
    /^(\s*[\d.]+\s*[;,]?\s*(?:url\s*=\s*)?(["']?))([^"']*)/i,
    (_, before: string, _quote: string, url: string) => `${before}${toPublicUrl(url, address)}`,
  );

/** `Link: <http://localhost:8000/?page=2>; rel="next"`, as APIs use it for pagination. */
export const toPublicLinks = (value: string, address: PortAddress): string =>
  value.replace(/<([^<>]*)>/g, (_, url: string) => `<${toPublicUrl(url, address)}>`);
