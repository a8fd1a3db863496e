import type { PortAuthorizer, PortDecision, RequestHead } from '@cde/satellite/ports/gateway.ts';
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
 * Routes `/@owner/name/ports/PORT/…` on the dashboard's own host. The dashboard's cookie grants nothing here: the
 * dashboard gets a pass, which becomes part of the path, so that the sandboxed page, whose requests carry no cookies,
 * can load its own files. docs/ports.md explains why.
 */
export function routeByPath(deps: {
  config: Pick<Config, 'accessUrl' | 'portHost' | 'portSharing'>;
  gate: Auth;
  access: PortLookup;
  passes: Passes;
}): PortAuthorizer<FoundPort> {
  const { config, gate, access, passes } = deps;
  const allows = (port: FoundPort | null, who: UserActor | null) =>
    authorizePort(port, who, config.portSharing) === 'allow';

  const isPublic = (port: FoundPort) => capLevel(port.level, config.portSharing) === 'public';

  return (request) => {
    const found = parsePortPath(request.url ?? '');
    return found && (() => route(request, found));
  };

  async function route(request: RequestHead, found: PortPath): Promise<PortDecision<FoundPort>> {
    const { ref, rest } = found;
    if (config.portHost !== null) return redirectToName(config.portHost, found);
    const navigates = isNavigation(request);
    // The dashboard's own pages request nothing here, but an injected script would. Requests of the port's sandboxed
    // pages are `cross-site`, although the host is the same.
    if (request.headers['sec-fetch-site'] === 'same-origin' && !navigates)
      throw crossOriginRequest('It came from a page of the dashboard.');
    if (request.headers['service-worker'] !== undefined)
      throw crossOriginRequest('Service workers are not available for ports opened by path.');
    const plain = portPath(ref);
    if (!rest.startsWith('/')) {
      const pass = found.pass ?? undefined;
      return { kind: 'redirect', location: `${portPath(ref, pass)}/${rest}` };
    }
    const port = await access.port(ref);
    if (found.pass !== null) return withPass(request, { ...found, pass: found.pass }, port, navigates);

    const token = await authenticateToken(gate, request);
    if (token || !navigates) {
      const verdict = authorizePort(port, token, config.portSharing);
      if (verdict === 'sign-in') throw signInRequired();
      if (verdict === 'deny' || !port) throw notShared();
      return forward(port, plain, rest, token, async () =>
        allows(await access.port(ref), token && (await authenticateToken(gate, request))),
      );
    }
    if (authorizePort(port, null, config.portSharing) !== 'allow' || !port)
      return { kind: 'redirect', location: `${openPath}?${new URLSearchParams({ to: `${plain}${rest}` })}` };
    const pass = await passes.signPath({ sid: null, workspace: port.workspaceId, port: port.port });
    return { kind: 'redirect', location: `${portPath(ref, pass)}${rest}` };
  }

  async function withPass(
    request: RequestHead,
    { ref, pass, rest }: PortPath & { pass: string },
    port: FoundPort | null,
    navigates: boolean,
  ): Promise<PortDecision<FoundPort>> {
    const claims = await passes.readPath(pass);
    const isValid = claims && port && claims.workspace === port.workspaceId && claims.port === port.port;
    const sid = claims?.sid ?? null;
    const isAllowed = async () =>
      allows(await access.port(ref), sid === null ? null : await access.session(sid));
    // A URL that was shared or found in a browser's history contains somebody else's pass.
    const isOwnPass =
      !navigates || sid === null || (await gate.findSessionsByCookie(request.headers.cookie)).includes(sid);
    if (!isValid || !isOwnPass || !(await isAllowed())) {
      if (navigates) return { kind: 'redirect', location: `${portPath(ref)}${rest}` };
      throw signInRequired();
    }
    // A sandboxed page has the origin `null`. Allow it, because it has presented a pass, which other pages do not have.
    const { origin } = request.headers;
    const cors: Record<string, string> =
      origin === 'null'
        ? { 'access-control-allow-origin': 'null', 'access-control-expose-headers': '*', vary: 'origin' }
        : {};
    if (request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined)
      return { kind: 'reply', status: 204, headers: { ...cors, ...preflight(request) } };
    const who = sid === null ? null : await access.session(sid);
    return forward(port, portPath(ref, pass), rest, who, isAllowed, cors);
  }

  function forward(
    port: FoundPort,
    prefix: string,
    path: string,
    who: UserActor | null,
    still: () => Promise<boolean>,
    more?: Record<string, string>,
  ): PortDecision<FoundPort> {
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
      ...(more && { extraHeaders: more }),
      user: who?.userId,
      visitorName: who?.via.kind === 'cookie' ? who.username : undefined,
      isStillAllowed: still,
    };
  }

  /** Redirects a link from before there was a wildcard name, or one made by hand. */
  async function redirectToName(suffix: string, { ref, rest }: PortPath): Promise<PortDecision<FoundPort>> {
    const port = await access.port(ref);
    if (!port) throw notShared();
    const label = portLabel({ ...ref, id: port.workspaceId });
    return {
      kind: 'redirect',
      location: `${portOrigin({ suffix, url: config.accessUrl }, label)}${rest.startsWith('/') ? rest : `/${rest}`}`,
    };
  }
}

/** Makes the function that returns the port's path with a pass in it, for a user who can open it. */
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
    if (!found || !port || authorizePort(port, who, config.portSharing) !== 'allow') throw notShared();
    const pass = await passes.signPath({ sid: who.via.id, workspace: port.workspaceId, port: port.port });
    return `${portPath(found.ref, pass)}${found.rest.startsWith('/') ? found.rest : `/${found.rest}`}`;
  };
}

/** The reply headers for a CORS preflight request. */
export function preflight(request: RequestHead): Record<string, string> {
  return {
    'access-control-allow-methods': request.headers['access-control-request-method'] ?? '',
    'access-control-allow-headers': request.headers['access-control-request-headers'] ?? '',
    'access-control-max-age': '600',
  };
}

/** The dashboard's host name. */
export const dashboardHost = (accessUrl: string) => hostName(new URL(accessUrl).host);
