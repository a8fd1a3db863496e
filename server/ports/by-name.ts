import { createHash, randomBytes } from 'node:crypto';
import { Problem } from '@cde/api/problem.ts';
import type { PortAuthorizer, PortDecision, RequestHead } from '@cde/satellite/ports/gateway.ts';
import { portCookie, stateCookie } from '@cde/satellite/ports/headers.ts';
import { enterPath, hostName, isReservedPath } from '@cde/satellite/ports/names.ts';
import { notShared } from '@cde/satellite/ports/problems.ts';
import type { Config } from '../config.ts';
import type { Database } from '../database/pool.ts';
import type { Auth, UserActor } from '../http/actor.ts';
import { readCookies } from '../identity/auth/auth.ts';
import { authorizePort, capLevel, type PortLookup } from './authorize.ts';
import { dashboardHost, preflight } from './by-path.ts';
import { openPath, type PortRef, type PortSite, parsePortLabel, portOrigin } from './names.ts';
import type { Passes } from './passes.ts';
import { authenticateToken, crossOriginRequest, isNavigation, signInRequired } from './requests.ts';
import { type FoundPort, makeCode, redeemCode } from './store.ts';

/** How long a person has to sign in along the way. */
const stateSeconds = 900;
const hashState = (nonce: string) => createHash('sha256').update(nonce).digest('base64url');

export interface Deps {
  config: Pick<Config, 'accessUrl' | 'portHost' | 'portSharing'>;
  database: Database;
  gate: Auth;
  access: PortLookup;
  passes: Passes;
  now: () => Date;
}

/** The server's own wildcard name, if it has one. */
export const ownSite = (config: Deps['config']): PortSite | null =>
  config.portHost === null
    ? null
    : {
        suffix: config.portHost,
        // With port 0 the URL is known only once the server listens.
        get url() {
          return config.accessUrl;
        },
      };

/** Routes requests under the site's wildcard name. Every host there except the dashboard's is a port or nothing. */
export function routeByName(deps: Deps, site: PortSite): PortAuthorizer<FoundPort> {
  const { config, database, gate, access, passes, now } = deps;
  const { suffix } = site;
  const secure = site.url.startsWith('https:');
  const cookieName = (name: string) => (secure ? `__Host-${name}` : name);
  const cookie = (name: string, value: string, maxAge: number) =>
    `${cookieName(name)}=${value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${maxAge}${secure ? '; Secure' : ''}`;

  return (request) => {
    const host = hostName(request.headers.host);
    if (!host.endsWith(suffix) || host === dashboardHost(config.accessUrl)) return null;
    return () => route(request, host);
  };

  async function route(request: RequestHead, host: string): Promise<PortDecision<FoundPort>> {
    const label = host.slice(0, -suffix.length);
    const ref = parsePortLabel(label);
    const url = request.url ?? '';
    if (!ref) throw notShared();
    if (!url.startsWith('/')) throw new Problem('bad-request', 'The request target must be a path.');
    const origin = portOrigin(site, label);
    if (isReservedPath(url)) return completeSignIn(request, host, origin);

    const port = await access.port(ref);
    const sid = await sessionOf(request, host);
    const find = async (): Promise<UserActor | null> =>
      (await authenticateToken(gate, request)) ?? (sid === null ? null : await access.session(sid));
    const who = await find();
    const isPublic = port !== null && capLevel(port.level, config.portSharing) === 'public';
    const from = request.headers.origin;
    const isSameWorkspace = from !== undefined && isOriginOfWorkspace(from, ref);
    if (
      !isPublic &&
      isSameWorkspace &&
      request.method === 'OPTIONS' &&
      request.headers['access-control-request-method'] !== undefined
    )
      // Preflight requests never carry cookies; the program's own CORS headers still apply to the request itself.
      return {
        kind: 'reply',
        status: 204,
        headers: {
          'access-control-allow-origin': from,
          'access-control-allow-credentials': 'true',
          vary: 'origin',
          ...preflight(request),
        },
      };
    const verdict = authorizePort(port, who, config.portSharing);
    if (verdict === 'sign-in') {
      if (!isNavigation(request)) throw signInRequired();
      return redirectToSignIn(request, host, url);
    }
    if (verdict === 'deny' || !port) throw notShared();
    // To a browser all ports are one site, so it sends the cookie when one user's port requests another's. Accept only
    // requests from the port's own pages, from ports of the same workspace, and navigations.
    if (!isPublic && who?.via.kind === 'cookie' && !isSameWorkspace) {
      const site = request.headers['sec-fetch-site'];
      const isAccepted =
        site === 'same-origin' ||
        (from === undefined && (site === undefined || site === 'none' || isNavigation(request)));
      if (!isAccepted) throw crossOriginRequest(`It came from ${from ?? 'another site'}.`);
    }
    return {
      kind: 'forward',
      port,
      path: url,
      visit: { port: port.port, origin, prefix: null, isPublic },
      user: who?.userId,
      visitorName: who?.via.kind === 'cookie' ? who.username : undefined,
      isStillAllowed: async () =>
        authorizePort(await access.port(ref), await find(), config.portSharing) === 'allow',
    };
  }

  /** The browser session named by the port's cookie. Other programs on the host may have set cookies of the same name. */
  async function sessionOf(request: RequestHead, host: string): Promise<string | null> {
    for (const text of readCookies(request.headers.cookie, cookieName(portCookie))) {
      const claims = await passes.readCookie(text);
      if (claims?.host === host) return claims.sid;
    }
    return null;
  }

  /** Whether `origin` is a port of the same workspace. Compares names only, so it does not reveal what exists. */
  function isOriginOfWorkspace(origin: string, ref: PortRef): boolean {
    if (!URL.canParse(origin)) return false;
    const { hostname } = new URL(origin);
    const label = hostname.endsWith(suffix) ? hostname.slice(0, -suffix.length) : '';
    const other = parsePortLabel(label);
    // Browsers send origins in lower case, and our names have no upper case.
    if (!other || origin.toLowerCase() !== portOrigin(site, label)) return false;
    return 'id' in ref
      ? 'id' in other && other.id === ref.id
      : !('id' in other) && other.owner === ref.owner && other.name === ref.name;
  }

  /** Redirects to the dashboard, where the browser is or will be signed in. */
  function redirectToSignIn(request: RequestHead, host: string, to: string): PortDecision<FoundPort> {
    const known = readCookies(request.headers.cookie, cookieName(stateCookie));
    // Two tabs that sign in at once share a state.
    const nonce = known.find((value) => /^[\w-]{32}$/.test(value)) ?? randomBytes(24).toString('base64url');
    const query = new URLSearchParams({ host, to, state: hashState(nonce) });
    return {
      kind: 'redirect',
      location: `${config.accessUrl}${openPath}?${query}`,
      cookies: [cookie(stateCookie, nonce, stateSeconds)],
    };
  }

  /** Completes the sign-in: exchanges the code, which works once, for this host, in this browser, for a cookie. */
  async function completeSignIn(
    request: RequestHead,
    host: string,
    origin: string,
  ): Promise<PortDecision<FoundPort>> {
    const url = new URL(request.url ?? '/', origin);
    if (url.pathname !== enterPath || request.method !== 'GET') throw notShared();
    const states = readCookies(request.headers.cookie, cookieName(stateCookie)).map(hashState);
    const code = url.searchParams.get('code') ?? '';
    const sessionId = await redeemCode(database, { code, host, states }, now());
    if (!sessionId)
      throw new Problem('port-sign-in-failed', 'The sign-in at this port did not work.', {
        detail: 'Its code works once, within a minute, in the browser that requested it.',
        hint: "Open the port's address again. The browser must accept its cookies.",
      });
    const asked = url.searchParams.get('to') ?? '/';
    const to = URL.canParse(asked, origin) ? new URL(asked, origin) : new URL(origin);
    return {
      kind: 'redirect',
      // Include the origin, because a path that starts with two slashes would be read as a host.
      location: to.origin === origin ? `${origin}${to.pathname}${to.search}` : `${origin}/`,
      cookies: [cookie(portCookie, await passes.signCookie({ sid: sessionId, host }), passes.maxAgeSeconds)],
    };
  }
}

/**
 * Makes the function that returns the port's URL with a sign-in code, for a user who can open it. The caller has checked
 * that the dashboard made the request: its cookie alone also reaches other programs on the host.
 */
export function makeNameOpener({ database, access, config, now }: Deps, sites: () => Promise<PortSite[]>) {
  return async (who: UserActor, asked: { host: string; to: string; state: string }): Promise<string> => {
    const host = hostName(asked.host);
    const found = (await sites())
      .map((site) => ({ site, label: host.endsWith(site.suffix) ? host.slice(0, -site.suffix.length) : '' }))
      .map((at) => ({ ...at, ref: parsePortLabel(at.label) }))
      .find(({ ref }) => ref !== null);
    if (!found?.ref) throw notShared();
    const { site, label, ref } = found;
    if (authorizePort(await access.port(ref), who, config.portSharing) !== 'allow') throw notShared();
    const code = await makeCode(database, { sessionId: who.via.id, host, state: asked.state }, now());
    return `${portOrigin(site, label)}${enterPath}?${new URLSearchParams({ code, to: asked.to })}`;
  };
}
