import type { Answer, Judge, RequestHead } from '@cde/satellite/ports/gateway.ts';
import { hostName } from '@cde/satellite/ports/names.ts';
import { notShared } from '@cde/satellite/ports/problems.ts';
import type { Config } from '../config.ts';
import type { Auth, UserActor } from '../http/actor.ts';
import { authorizePort, capLevel, type PortLookup } from './authorize.ts';
import { openPath, type PortPath, parsePortPath, portLabel, portOrigin, portPath } from './names.ts';
import type { Passes } from './passes.ts';
import { authenticateToken, crossOriginRequest, isNavigation, signInRequired } from './requests.ts';
import type { FoundPort } from './store.ts';

/**
 * `/@owner/name/ports/PORT/…` on the dashboard's own name. The dashboard's cookie opens nothing here: a page of the
 * dashboard gets a pass, which goes into the path, so that the sandboxed page (whose requests carry no cookies) gets
 * at its own files. docs/ports.md has the reasoning.
 */
export function routeByPath(deps: {
  config: Pick<Config, 'accessUrl' | 'portHost' | 'portSharing'>;
  gate: Auth;
  access: PortLookup;
  passes: Passes;
}): Judge<FoundPort> {
  const { config, gate, access, passes } = deps;
  const allows = (port: FoundPort | null, who: UserActor | null) =>
    authorizePort(port, who, config.portSharing) === 'yes';

  const isPublic = (port: FoundPort) => capLevel(port.level, config.portSharing) === 'public';

  return (request) => {
    const found = parsePortPath(request.url ?? '');
    return found && (() => judge(request, found));
  };

  async function judge(request: RequestHead, found: PortPath): Promise<Answer<FoundPort>> {
    const { ref: place, rest } = found;
    if (config.portHost !== null) return toName(config.portHost, found);
    const navigates = isNavigation(request);
    // The dashboard's own pages ask for nothing here; a script that got into one would. Of the port's pages
    // the browser says `cross-site`, for all that they stand under the same name.
    if (request.headers['sec-fetch-site'] === 'same-origin' && !navigates)
      throw crossOriginRequest('A page of the dashboard asked for it.');
    if (request.headers['service-worker'] !== undefined)
      throw crossOriginRequest('By path there are no service workers.');
    const plain = portPath(place);
    if (!rest.startsWith('/')) {
      const pass = found.pass ?? undefined;
      return { kind: 'redirect', location: `${portPath(place, pass)}/${rest}` };
    }
    const port = await access.port(place);
    if (found.pass !== null) return withPass(request, { ...found, pass: found.pass }, port, navigates);

    const token = await authenticateToken(gate, request);
    if (token || !navigates) {
      const verdict = authorizePort(port, token, config.portSharing);
      if (verdict === 'sign-in') throw signInRequired();
      if (verdict === 'no' || !port) throw notShared();
      return forward(port, plain, rest, token, async () =>
        allows(await access.port(place), token && (await authenticateToken(gate, request))),
      );
    }
    if (authorizePort(port, null, config.portSharing) !== 'yes' || !port)
      return { kind: 'redirect', location: `${openPath}?${new URLSearchParams({ to: `${plain}${rest}` })}` };
    const pass = await passes.signPath({ sid: null, workspace: port.workspaceId, port: port.port });
    return { kind: 'redirect', location: `${portPath(place, pass)}${rest}` };
  }

  async function withPass(
    request: RequestHead,
    { ref: place, pass, rest }: PortPath & { pass: string },
    port: FoundPort | null,
    navigates: boolean,
  ): Promise<Answer<FoundPort>> {
    const claims = await passes.readPath(pass);
    const good = claims && port && claims.workspace === port.workspaceId && claims.port === port.port;
    const sid = claims?.sid ?? null;
    const may = async () => allows(await access.port(place), sid === null ? null : await access.session(sid));
    // An address that somebody was sent, or found in a history, holds somebody else's pass.
    const theirs =
      !navigates || sid === null || (await gate.findSessionsByCookie(request.headers.cookie)).includes(sid);
    if (!good || !theirs || !(await may())) {
      if (navigates) return { kind: 'redirect', location: `${portPath(place)}${rest}` };
      throw signInRequired();
    }
    // The page's origin is `null`; it has shown a pass, which a page of somebody else's does not have.
    const { origin } = request.headers;
    const cors: Record<string, string> =
      origin === 'null'
        ? { 'access-control-allow-origin': 'null', 'access-control-expose-headers': '*', vary: 'origin' }
        : {};
    if (request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined)
      return { kind: 'reply', status: 204, headers: { ...cors, ...preflight(request) } };
    const who = sid === null ? null : await access.session(sid);
    return forward(port, portPath(place, pass), rest, who, may, cors);
  }

  function forward(
    port: FoundPort,
    prefix: string,
    path: string,
    who: UserActor | null,
    still: () => Promise<boolean>,
    more?: Record<string, string>,
  ): Answer<FoundPort> {
    return {
      kind: 'forward',
      port,
      path,
      visit: {
        port: port.port,
        origin: new URL(config.accessUrl).origin,
        prefix,
        hasPass: more !== undefined,
        isPublic: isPublic(port) && more === undefined,
      },
      ...(more && { more }),
      user: who?.userId,
      still,
    };
  }

  /** A link from when there was no wildcard name, or made by hand. */
  async function toName(suffix: string, { ref: place, rest }: PortPath): Promise<Answer<FoundPort>> {
    const port = await access.port(place);
    if (!port) throw notShared();
    const label = portLabel({ ...place, id: port.workspaceId });
    return {
      kind: 'redirect',
      location: `${portOrigin({ suffix, url: config.accessUrl }, label)}${rest.startsWith('/') ? rest : `/${rest}`}`,
    };
  }
}

/** Where the browser of somebody who may open a port goes next: to the port's path with a pass in it. */
export function makePathOpener({
  config,
  access,
  passes,
}: {
  config: Pick<Config, 'portSharing'>;
  access: PortLookup;
  passes: Passes;
}) {
  return async (who: UserActor, to: string): Promise<string> => {
    const found = parsePortPath(to);
    const port = found && (await access.port(found.ref));
    if (!found || !port || authorizePort(port, who, config.portSharing) !== 'yes') throw notShared();
    const pass = await passes.signPath({ sid: who.via.id, workspace: port.workspaceId, port: port.port });
    return `${portPath(found.ref, pass)}${found.rest.startsWith('/') ? found.rest : `/${found.rest}`}`;
  };
}

/** What a page asks before a request that a form could not make. */
export function preflight(request: RequestHead): Record<string, string> {
  return {
    'access-control-allow-methods': request.headers['access-control-request-method'] ?? '',
    'access-control-allow-headers': request.headers['access-control-request-headers'] ?? '',
    'access-control-max-age': '600',
  };
}

/** Under which name the dashboard is reached. */
export const dashboardHost = (accessUrl: string) => hostName(new URL(accessUrl).host);
