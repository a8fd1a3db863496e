import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { sessionCookie } from '@cde/api/identity.ts';

/** RFC 9110, 7.6.1: of one connection only, and no business of the next. */
const hopByHop = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);
/** What the visitor says of where they come from, or a proxy in front; we know, or have it from a proxy we trust. */
const claims =
  /^(forwarded|x-forwarded-.*|x-real-ip|x-client-ip|true-client-ip|cf-connecting-ip|x-original-.*|x-rewrite-url)$/;
/** Orders to a proxy in front of us (nginx, Apache, a CDN), which takes them from us alone. */
const toProxies = /^(x-accel-(?!buffering$).*|x-sendfile.*|x-lighttpd-.*|x-reproxy-.*|surrogate-.*|cdn-.*)$/;
/** On a name of its own these would still reach beyond it: to the whole site's cookies, or to other ports of the host. */
const tooFar = new Set([
  'clear-site-data',
  'strict-transport-security',
  'public-key-pins',
  'alt-svc',
  'expect-ct',
]);
/** By path the origin is the dashboard's, so only what concerns the reply itself passes, and `x-…`. */
const passByPath = new Set([
  'accept-ranges',
  'age',
  'allow',
  'cache-control',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-length',
  'content-range',
  'content-security-policy',
  'content-type',
  'date',
  'etag',
  'expires',
  'last-modified',
  'location',
  'pragma',
  'retry-after',
  'sec-websocket-accept',
  'sec-websocket-extensions',
  'sec-websocket-protocol',
  'server-timing',
  'vary',
]);

/** True of an Authorization header that holds a token of ours. */
export const isOurToken = (authorization: string | undefined): boolean =>
  /^\s*Bearer\s+cde_/i.test(authorization ?? '');

export const portCookie = 'cde_port';
export const stateCookie = 'cde_port_state';
/** Our cookies' names, as they are over http and over https. */
const ourCookies = [sessionCookie, portCookie, stateCookie].flatMap((name) => [name, `__Host-${name}`]);

/**
 * Of every reply by path. The page gets an origin of its own that nothing shares: no cookies, no storage, no
 * service worker, and the dashboard is another site to it.
 */
export const sandbox =
  'sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads allow-pointer-lock allow-orientation-lock allow-presentation';

export interface Visit {
  /** The port on the workspace's loopback. */
  port: number;
  /** As the browser sees it: `https://8080--web--ada.dev.example.com`, by path the dashboard's. */
  origin: string;
  /** By path: what the port's own paths begin with, without a slash at the end; null by name. */
  prefix: string | null;
  clientIp: string;
  /** True where nobody had to show who they are: then shared caches may keep what they may keep. */
  isPublic: boolean;
}

/** What the workspace is sent of a request's headers. */
export function requestHeaders(request: IncomingMessage, visit: Visit): Record<string, string | string[]> {
  const named = namedByConnection(request.headers);
  const headers: Record<string, string | string[]> = {};
  for (const [name, values] of Object.entries(request.headersDistinct)) {
    if (!values || hopByHop.has(name) || named.has(name) || claims.test(name) || name === 'expect') continue;
    headers[name] = values.length === 1 ? values[0]! : values;
  }
  const origin = new URL(visit.origin);
  headers.host = `localhost:${visit.port}`;
  headers['x-forwarded-host'] = origin.host;
  headers['x-forwarded-proto'] = origin.protocol.slice(0, -1);
  headers['x-forwarded-port'] = origin.port || (origin.protocol === 'https:' ? '443' : '80');
  headers['x-forwarded-for'] = visit.clientIp;
  // Node frames a body of unknown length by itself only where the method usually has one.
  if (request.headers['transfer-encoding'] !== undefined) headers['transfer-encoding'] = 'chunked';

  // The name is the dashboard's or stands beside it: a proxy in front may let people in by a cookie or a
  // password of its own, and what is for it or for us is not for the workspace.
  if (visit.prefix !== null) {
    delete headers.cookie;
    delete headers.authorization;
    // Holds the pass, and the page's `null` is refused by many.
    delete headers.referer;
    delete headers.origin;
    headers['x-forwarded-prefix'] = visit.prefix;
  } else {
    if ([headers.authorization].flat().some(isOurToken)) delete headers.authorization;
    const cookies = withoutOurs(request.headers.cookie);
    if (cookies === '') delete headers.cookie;
    else headers.cookie = cookies;
  }
  return headers;
}

/** A WebSocket's: development servers and notebooks compare its Origin with the Host that they see. */
export function upgradeHeaders(request: IncomingMessage, visit: Visit): Record<string, string | string[]> {
  const headers = requestHeaders(request, visit);
  headers.connection = 'Upgrade';
  headers.upgrade = 'websocket';
  const { origin } = request.headers;
  if (origin !== undefined && (visit.prefix !== null || origin === visit.origin))
    headers.origin = `http://localhost:${visit.port}`;
  return headers;
}

/** What the browser gets of a reply's headers. */
export function replyHeaders(reply: IncomingMessage, visit: Visit): OutgoingHttpHeaders {
  const named = namedByConnection(reply.headers);
  const headers: OutgoingHttpHeaders = {};
  for (const [name, values] of Object.entries(reply.headersDistinct)) {
    if (!values || hopByHop.has(name) || named.has(name) || toProxies.test(name)) continue;
    if (visit.prefix === null ? tooFar.has(name) : !passByPath.has(name) && !name.startsWith('x-')) continue;
    headers[name] = values;
  }
  if (typeof reply.headers.location === 'string')
    headers.location = browserLocation(reply.headers.location, visit);
  if (!visit.isPublic) headers['cache-control'] = privately(reply.headers['cache-control']);
  if (visit.prefix === null) {
    const cookies = (reply.headers['set-cookie'] ?? []).flatMap(hostOnlyCookie);
    if (cookies.length > 0) headers['set-cookie'] = cookies;
    else delete headers['set-cookie'];
  } else {
    // Beside the page's own, not instead: of several policies, with commas between, each holds.
    const own = reply.headers['content-security-policy'];
    headers['content-security-policy'] = own === undefined ? sandbox : `${sandbox}, ${own}`;
    headers['referrer-policy'] = 'no-referrer';
    headers['x-content-type-options'] = 'nosniff';
  }
  return headers;
}

/**
 * Both: what a Connection header names is as much of the one connection as it is itself. Not how long the body is: without
 * that, a body would be read as the next request.
 */
function namedByConnection(headers: IncomingHttpHeaders): Set<string> {
  const named = new Set((headers.connection ?? '').split(',').map((name) => name.trim().toLowerCase()));
  named.delete('content-length');
  return named;
}

function withoutOurs(header: string | undefined): string {
  return (header ?? '')
    .split(';')
    .filter((part) => !ourCookies.includes(part.split('=', 1)[0]!.trim()))
    .join(';')
    .trim();
}

/** Without Domain: a cookie of one port is no other port's, and no way to plant one on the dashboard. */
function hostOnlyCookie(cookie: string): string[] {
  // One without a name is sent back as its value alone, which then has one.
  if (
    ourCookies.includes(
      cookie
        .replace(/^[\s=]+/, '')
        .split(/[=;]/, 1)[0]!
        .trim(),
    )
  )
    return [];
  return [
    cookie
      .split(';')
      .filter((part, at) => at === 0 || !/^\s*domain\s*=/i.test(part))
      .join(';'),
  ];
}

/** A program that names itself by where it listens, or by what we told it, means where the browser found it. */
function browserLocation(location: string, visit: Visit): string {
  const names = [
    visit.origin,
    ...['localhost', '127.0.0.1', '[::1]', '0.0.0.0'].map((host) => `http://${host}:${visit.port}`),
  ];
  const own = names.find(
    (name) => location.toLowerCase().startsWith(name) && /^([/?#]|$)/.test(location.slice(name.length)),
  );
  const path = own === undefined ? location : location.slice(own.length).replace(/^(?!\/)/, '/');
  if (visit.prefix === null || !/^\/(?![/\\])/.test(path) || path.startsWith(`${visit.prefix}/`)) return path;
  return `${visit.prefix}${path}`;
}

function privately(given: string | undefined): string {
  const directives = (given ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '' && !/^(public|private|s-maxage)\b/i.test(part));
  return ['private', ...directives].join(', ');
}
