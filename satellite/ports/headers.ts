import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { sessionCookie } from '@cde/api/identity.ts';
import {
  localOrigin,
  type PortAddress,
  toLocalOrigin,
  toLocalReferer,
  toPublicLinks,
  toPublicRefresh,
  toPublicUrl,
} from './origins.ts';

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
/** What the visitor claims of where they come from, or a proxy in front; we know, or have it from a proxy we trust. */
const clientClaims =
  /^(forwarded|x-forwarded|x-forwarded-.*|x-real-.*|x-client-ip|client-ip|true-client-ip|fastly-client-ip|cf-connecting-ip|x-cluster-client-ip|x-original-.*|x-rewrite-url|x-host|x-http-host-override|x-scheme|x-url-scheme|front-end-https)$/;
/** Headers that a program takes from `x_y` as from `x-y` (CGI's names, in Python and Ruby) and must have from us alone. */
const protectedHeaders = /^(content-length|content-type|sec-.*|access-control-.*|user-agent|if-.*)$/;
/** Orders to a proxy in front of us (nginx, Apache, a CDN), which takes them from us alone. */
const proxyDirectives =
  /^(x-accel-(?!buffering$).*|x-sendfile.*|x-lighttpd-.*|x-reproxy-.*|surrogate-.*|cdn-.*)$/;
/** On a name of its own these would still reach beyond it: to the whole site's cookies, or to other ports of the host. */
const hostWideHeaders = new Set([
  'clear-site-data',
  'strict-transport-security',
  'public-key-pins',
  'alt-svc',
  'expect-ct',
]);
/** By path the origin is the dashboard's, so only what concerns the reply itself passes, and `x-…`. */
const allowedByPath = new Set([
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
export const isCdeToken = (authorization: string | undefined): boolean =>
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

export interface Visit extends PortAddress {
  clientIp: string;
  /** True where nobody had to show who they are: then shared caches may keep what they may keep. */
  isPublic: boolean;
}

/** The headers that the workspace gets with a request. */
export function requestHeaders(request: IncomingMessage, visit: Visit): Record<string, string | string[]> {
  const named = namedByConnection(request.headers);
  const headers: Record<string, string | string[]> = {};
  for (const [name, values] of Object.entries(request.headersDistinct)) {
    const plain = name.replaceAll('_', '-');
    if (!values || hopByHop.has(plain) || named.has(name) || clientClaims.test(plain) || name === 'expect')
      continue;
    if (plain !== name && protectedHeaders.test(plain)) continue;
    headers[name] = values.length === 1 ? values[0]! : values;
  }
  setLocalAddress(request, headers, visit);
  // Node frames a body of unknown length by itself only where the method usually has one.
  if (request.headers['transfer-encoding'] !== undefined) headers['transfer-encoding'] = 'chunked';

  // The name is the dashboard's or stands beside it: a proxy in front may let people in by a cookie or a
  // password of its own, and what is for it or for us is not for the workspace.
  if (visit.prefix !== null) {
    delete headers.cookie;
    delete headers.authorization;
    headers['x-forwarded-prefix'] = visit.prefix;
  } else {
    if ([headers.authorization].flat().some(isCdeToken)) delete headers.authorization;
    const cookies = stripOurCookies(request.headers.cookie);
    if (cookies === '') delete headers.cookie;
    else headers.cookie = cookies;
  }
  return headers;
}

/**
 * Everything that says where the program is reached, and from which page: all of it local, as origins.ts explains. The
 * public address comes in headers that no framework compares with anything; VS Code, ngrok's users and Azure's know them.
 */
function setLocalAddress(
  { headersDistinct }: IncomingMessage,
  headers: Record<string, string | string[]>,
  visit: Visit,
): void {
  const { host, protocol } = new URL(visit.origin);
  headers.host = new URL(localOrigin(visit.port)).host;
  headers['x-original-host'] = host;
  headers['x-original-proto'] = protocol.slice(0, -1);
  headers['x-forwarded-for'] = visit.clientIp;
  if (headers.origin !== undefined) {
    const origins = [headers.origin].flat().map((origin) => toLocalOrigin(origin, visit));
    headers.origin = origins.length === 1 ? origins[0]! : origins;
  }
  if (headers.referer !== undefined) {
    const referer = toLocalReferer([headers.referer].flat()[0]!, visit);
    if (referer === null) delete headers.referer;
    else headers.referer = referer;
  }
  // The sandboxed page is a foreign site to the dashboard, whose name it stands under, and not to its own program.
  const from = headersDistinct.origin ?? ['null'];
  if (visit.hasPass && headers['sec-fetch-site'] === 'cross-site' && from.join() === 'null')
    headers['sec-fetch-site'] = 'same-origin';
}

/** Those of a WebSocket's handshake. */
export function upgradeHeaders(request: IncomingMessage, visit: Visit): Record<string, string | string[]> {
  const headers = requestHeaders(request, visit);
  headers.connection = 'Upgrade';
  headers.upgrade = 'websocket';
  return headers;
}

/** What the browser gets of a reply's headers; `origin`: the Origin header that it sent. */
export function replyHeaders(
  reply: IncomingMessage,
  visit: Visit,
  origin: string | undefined,
): OutgoingHttpHeaders {
  const named = namedByConnection(reply.headers);
  const headers: OutgoingHttpHeaders = {};
  for (const [name, values] of Object.entries(reply.headersDistinct)) {
    if (!values || hopByHop.has(name) || named.has(name) || proxyDirectives.test(name)) continue;
    if (
      visit.prefix === null ? hostWideHeaders.has(name) : !allowedByPath.has(name) && !name.startsWith('x-')
    )
      continue;
    headers[name] = values;
  }
  setPublicAddress(reply, headers, visit, origin);
  if (!visit.isPublic) headers['cache-control'] = makePrivate(reply.headers['cache-control']);
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

function stripOurCookies(header: string | undefined): string {
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

/** Translates what the program says of its own address back to where the browser finds it. */
function setPublicAddress(
  reply: IncomingMessage,
  headers: OutgoingHttpHeaders,
  visit: Visit,
  origin: string | undefined,
): void {
  for (const name of ['location', 'content-location'] as const) {
    const url = reply.headers[name];
    if (headers[name] !== undefined && typeof url === 'string') headers[name] = toPublicUrl(url, visit);
  }
  const translated = (name: string, translate: (value: string) => string) => {
    if (Array.isArray(headers[name])) headers[name] = headers[name].map(translate);
  };
  translated('refresh', (value) => toPublicRefresh(value, visit));
  translated('link', (value) => toPublicLinks(value, visit));
  // A program names the origin that it was told; the browser compares it with its own.
  if (origin === undefined) return;
  const localOfOrigin = toLocalOrigin(origin, visit);
  for (const name of ['access-control-allow-origin', 'timing-allow-origin'])
    translated(name, (value) =>
      value
        .split(',')
        .map((one) => (one.trim() === localOfOrigin ? origin : one))
        .join(','),
    );
}

function makePrivate(given: string | undefined): string {
  const directives = (given ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '' && !/^(public|private|s-maxage)\b/i.test(part));
  return ['private', ...directives].join(', ');
}
