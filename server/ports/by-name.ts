import { createHash, randomBytes } from 'node:crypto';
import { Problem } from '@cde/api/problem.ts';
import type { Answer, Judge, RequestHead } from '@cde/satellite/ports/gateway.ts';
import { portCookie, stateCookie } from '@cde/satellite/ports/headers.ts';
import { enterPath, hostName, isOurs } from '@cde/satellite/ports/names.ts';
import { notShared } from '@cde/satellite/ports/problems.ts';
import type { Config } from '../config.ts';
import type { Database } from '../database/pool.ts';
import type { Auth, UserActor } from '../http/actor.ts';
import { readCookies } from '../identity/auth.ts';
import { authorizePort, capLevel, type PortLookup } from './authorize.ts';
import { dashboardHost, preflight } from './by-path.ts';
import { openPath, type PortRef, type PortSite, parsePortLabel, portOrigin } from './names.ts';
import type { Passes } from './passes.ts';
import { authenticateToken, crossOriginRequest, isNavigation, signInRequired } from './requests.ts';
import { type FoundPort, makeCode, redeemCode } from './store.ts';

/** How long a person may take over the sign-in that comes in between. */
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

/** The server's own wildcard name, where it has one. */
export const ownSite = (config: Deps['config']): PortSite | null =>
  config.portHost === null
    ? null
    : {
        suffix: config.portHost,
        // Where the server listens on any free port, its address is known no sooner than it listens.
        get url() {
          return config.accessUrl;
        },
      };

/** What is under the wildcard name of the site, and is not the dashboard: all of it is ports, or nothing. */
export function routeByName(deps: Deps, site: PortSite): Judge<FoundPort> {
  const { config, database, gate, access, passes, now } = deps;
  const { suffix } = site;
  const secure = site.url.startsWith('https:');
  const cookieName = (name: string) => (secure ? `__Host-${name}` : name);
  const cookie = (name: string, value: string, maxAge: number) =>
    `${cookieName(name)}=${value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${maxAge}${secure ? '; Secure' : ''}`;

  return (request) => {
    const host = hostName(request.headers.host);
    if (!host.endsWith(suffix) || host === dashboardHost(config.accessUrl)) return null;
    return () => judge(request, host);
  };

  async function judge(request: RequestHead, host: string): Promise<Answer<FoundPort>> {
    const label = host.slice(0, -suffix.length);
    const place = parsePortLabel(label);
    const url = request.url ?? '';
    if (!place) throw notShared();
    if (!url.startsWith('/')) throw new Problem('bad-request', 'Ask for a path.');
    const origin = portOrigin(site, label);
    if (isOurs(url)) return enter(request, host, origin);

    const port = await access.port(place);
    const sid = await sessionOf(request, host);
    const find = async (): Promise<UserActor | null> =>
      (await authenticateToken(gate, request)) ?? (sid === null ? null : await access.session(sid));
    const who = await find();
    const isPublic = port !== null && capLevel(port.level, config.portSharing) === 'public';
    const from = request.headers.origin;
    const ofTheSame = from !== undefined && isOfWorkspace(from, place);
    if (
      !isPublic &&
      ofTheSame &&
      request.method === 'OPTIONS' &&
      request.headers['access-control-request-method'] !== undefined
    )
      // It carries no cookie, ever. What the program says of the request itself counts all the same.
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
      return begin(request, host, url);
    }
    if (verdict === 'no' || !port) throw notShared();
    // Ports are one site to a browser, as are their owners': it sends the cookie with what one of them asks of
    // another. Only of the page itself, of another port of the same workspace, or of a person who goes there.
    if (!isPublic && who?.via.kind === 'cookie' && !ofTheSame) {
      const site = request.headers['sec-fetch-site'];
      const fine =
        site === 'same-origin' ||
        (from === undefined && (site === undefined || site === 'none' || isNavigation(request)));
      if (!fine) throw crossOriginRequest(`It came from ${from ?? 'another site'}.`);
    }
    return {
      kind: 'forward',
      port,
      path: url,
      visit: { port: port.port, origin, prefix: null, isPublic },
      user: who?.userId,
      still: async () => authorizePort(await access.port(place), await find(), config.portSharing) === 'yes',
    };
  }

  /** The browser session that the port's cookie names. Another program of the host may have planted more of that name. */
  async function sessionOf(request: RequestHead, host: string): Promise<string | null> {
    for (const text of readCookies(request.headers.cookie, cookieName(portCookie))) {
      const claims = await passes.readCookie(text);
      if (claims?.host === host) return claims.sid;
    }
    return null;
  }

  /** Is this the origin of a port of that workspace? Told by the names alone: the answer must tell nobody what there is. */
  function isOfWorkspace(origin: string, place: PortRef): boolean {
    if (!URL.canParse(origin)) return false;
    const { hostname } = new URL(origin);
    const label = hostname.endsWith(suffix) ? hostname.slice(0, -suffix.length) : '';
    const other = parsePortLabel(label);
    // Browsers write it in lower case; names have none.
    if (!other || origin.toLowerCase() !== portOrigin(site, label)) return false;
    return 'id' in place
      ? 'id' in other && other.id === place.id
      : !('id' in other) && other.owner === place.owner && other.name === place.name;
  }

  /** To the dashboard, where the browser is signed in or will be. */
  function begin(request: RequestHead, host: string, to: string): Answer<FoundPort> {
    const known = readCookies(request.headers.cookie, cookieName(stateCookie));
    // Two tabs at once share theirs.
    const nonce = known.find((value) => /^[\w-]{32}$/.test(value)) ?? randomBytes(24).toString('base64url');
    const query = new URLSearchParams({ host, to, state: hashState(nonce) });
    return {
      kind: 'redirect',
      location: `${config.accessUrl}${openPath}?${query}`,
      cookies: [cookie(stateCookie, nonce, stateSeconds)],
    };
  }

  /** Back from there, with a code that is good for this name, once, in the browser that asked for it. */
  async function enter(request: RequestHead, host: string, origin: string): Promise<Answer<FoundPort>> {
    const url = new URL(request.url ?? '/', origin);
    if (url.pathname !== enterPath || request.method !== 'GET') throw notShared();
    const states = readCookies(request.headers.cookie, cookieName(stateCookie)).map(hashState);
    const code = url.searchParams.get('code') ?? '';
    const sessionId = await redeemCode(database, { code, host, states }, now());
    if (!sessionId)
      throw new Problem('port-sign-in-failed', 'The sign-in at this port did not work.', {
        detail: 'Its code works once, within a minute, in the browser that asked for it.',
        hint: 'Open the address of the port again. The browser must take its cookies.',
      });
    const asked = url.searchParams.get('to') ?? '/';
    const to = URL.canParse(asked, origin) ? new URL(asked, origin) : new URL(origin);
    return {
      kind: 'redirect',
      // With its origin: a path may begin with two slashes, and what follows these be taken for a host.
      location: to.origin === origin ? `${origin}${to.pathname}${to.search}` : `${origin}/`,
      cookies: [cookie(portCookie, await passes.signCookie({ sid: sessionId, host }), passes.maxAgeSeconds)],
    };
  }
}

/**
 * Where the browser of somebody who may open a port goes next: to the port's own name, with a code that gets it a cookie there.
 * `who` has proven that the dashboard asks: its cookie alone also reaches other programs of the host.
 */
export function makeNameOpener({ database, access, config, now }: Deps, sites: () => Promise<PortSite[]>) {
  return async (who: UserActor, asked: { host: string; to: string; state: string }): Promise<string> => {
    const host = hostName(asked.host);
    const found = (await sites())
      .map((site) => ({ site, label: host.endsWith(site.suffix) ? host.slice(0, -site.suffix.length) : '' }))
      .map((at) => ({ ...at, place: parsePortLabel(at.label) }))
      .find(({ place }) => place !== null);
    if (!found?.place) throw notShared();
    const { site, label, place } = found;
    if (authorizePort(await access.port(place), who, config.portSharing) !== 'yes') throw notShared();
    const code = await makeCode(database, { sessionId: who.via.id, host, state: asked.state }, now());
    return `${portOrigin(site, label)}${enterPath}?${new URLSearchParams({ code, to: asked.to })}`;
  };
}
