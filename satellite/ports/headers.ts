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

/** RFC 9110, 7.6.1: these concern a single connection and are not forwarded. */
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
/** Claims about the client's address or the original request. We set our own; only trusted proxies are believed. */
const clientClaims =
  /^(forwarded|x-forwarded|x-forwarded-.*|x-real-.*|x-client-ip|client-ip|true-client-ip|fastly-client-ip|cf-connecting-ip|x-cluster-client-ip|x-original-.*|x-rewrite-url|x-host|x-http-host-override|x-scheme|x-url-scheme|front-end-https)$/;
/** Programs with CGI-style names (Python, Ruby) cannot tell `x_y` from `x-y`; these must not be smuggled in that way. */
const protectedHeaders = /^(content-length|content-type|sec-.*|access-control-.*|user-agent|if-.*)$/;
/** Directives to a proxy in front of us (nginx, Apache, a CDN), which a workspace must not give. */
const proxyDirectives =
  /^(x-accel-(?!buffering$).*|x-sendfile.*|x-lighttpd-.*|x-reproxy-.*|surrogate-.*|cdn-.*)$/;
/** These affect more than the port's own host name: the site's cookies, or other ports of the host. */
const hostWideHeaders = new Set([
  'clear-site-data',
  'strict-transport-security',
  'public-key-pins',
  'alt-svc',
  'expect-ct',
]);
/** By path the origin is the dashboard's, so only headers that describe the response pass, and `x-…`. */
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

/** True if an Authorization header holds a cde token. */
export const isCdeToken = (authorization: string | undefined): boolean =>
  /^\s*Bearer\s+cde_/i.test(authorization ?? '');

export const portCookie = 'cde_port';
export const stateCookie = 'cde_port_state';
/** Names of our cookies over http and over https. */
const ourCookies = [sessionCookie, portCookie, stateCookie].flatMap((name) => [name, `__Host-${name}`]);

/**
 * Content-Security-Policy of every response by path. It gives the page an opaque origin: no cookies, no storage, no
 * service worker, and cross-site to the dashboard.
 */
const sandbox =
  'sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads allow-pointer-lock allow-orientation-lock allow-presentation';

export interface Visit extends PortAddress {
  clientIp: string;
  /** True if no sign-in was needed, so that shared caches may store the response. */
  isPublic: boolean;
}

/** The request headers that are forwarded to the workspace. */
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
  // Node adds the framing itself only for methods that usually have a body.
  if (request.headers['transfer-encoding'] !== undefined) headers['transfer-encoding'] = 'chunked';

  // By path the host name is the dashboard's. A proxy in front may use its own cookie or password, and neither those nor
  // ours may reach the workspace.
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
 * Rewrites all headers about the program's address and the referring page to local ones, as origins.ts explains. The
 * public address is in headers that no framework compares with others; VS Code, ngrok and Azure use the same ones.
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
  // A sandboxed page is cross-site to the dashboard, whose host name it uses, but not to its own program.
  const from = headersDistinct.origin ?? ['null'];
  if (visit.hasPass && headers['sec-fetch-site'] === 'cross-site' && from.join() === 'null')
    headers['sec-fetch-site'] = 'same-origin';
}

/** The headers of a WebSocket handshake. */
export function upgradeHeaders(request: IncomingMessage, visit: Visit): Record<string, string | string[]> {
  const headers = requestHeaders(request, visit);
  headers.connection = 'Upgrade';
  headers.upgrade = 'websocket';
  return headers;
}

/** The response headers that are sent to the browser. `origin` is the Origin header of its request. */
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
    // In addition to the page's own policy: with several, separated by commas, all apply.
    const own = reply.headers['content-security-policy'];
    headers['content-security-policy'] = own === undefined ? sandbox : `${sandbox}, ${own}`;
    headers['referrer-policy'] = 'no-referrer';
    headers['x-content-type-options'] = 'nosniff';
  }
  return headers;
}

/**
 * Headers named by a Connection header are hop-by-hop too. Except Content-Length: without it the body would be parsed as
 * the next request.
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

/** Removes Domain, so that a port cannot set cookies for other ports or the dashboard. */
function hostOnlyCookie(cookie: string): string[] {
  // A cookie without a name is sent back as its bare value, which may look like one with a name.
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

/** Translates the program's local address in response headers back to the public one. */
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
  // The program allows the local origin that it was sent; the browser compares it with the public one.
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
