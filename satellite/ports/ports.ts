import { createHash } from 'node:crypto';
import type { Client } from '@cde/api/client.ts';
import { CallError } from '@cde/api/client.ts';
import { catalogue, type ErrorCode, Problem } from '@cde/api/problem.ts';
import { authorizePortVisit } from '@cde/api/satellite-ports.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { openSession } from '@cde/tunnel/session/session.ts';
import pLimit from 'p-limit';
import type { z } from 'zod';
import { makePortGateway, type PortAuthorizer, type PortGateway, type RequestHead } from './gateway.ts';
import { isCdeToken, portCookie, stateCookie } from './headers.ts';
import { hostName, isReservedPath } from './names.ts';
import { busy, notShared } from './problems.ts';
import { makeRequestCache } from './request-cache.ts';
import { makePortSessions, type PortTarget } from './sessions.ts';

type Verdict = z.output<NonNullable<typeof authorizePortVisit.reply>>;

/** Holds what the server was asked, to request a ticket later and to check again. */
interface AuthorizedPort extends PortTarget {
  visit: { head: { method: string; url: string; headers: Record<string, string> } };
}

/** The request headers that the server needs to decide. Not Authorization: satellites must not see API tokens. */
const forwardedHeaders = [
  'host',
  'origin',
  'accept',
  'sec-fetch-site',
  'sec-fetch-mode',
  'sec-fetch-dest',
  'access-control-request-method',
  'access-control-request-headers',
] as const;
const cookies = [portCookie, stateCookie].flatMap((name) => [name, `__Host-${name}`]);

const requestTimeoutMs = 10_000;
/** Visits are rechecked every four seconds and the server may cache its answer for two, so nothing may be added here. */
const recheckMaxAgeMs = 500;
/** Concurrent requests to the server: requests for made-up names must not flood it. */
const maxPendingVisits = 200;
/** Concurrent rechecks of open connections; the others wait. */
const maxConcurrentRechecks = 50;

/**
 * Serves workspace ports to browsers at a satellite: the server authorizes each visit and the satellite proxies it.
 * Verdicts are cached for two seconds, as at the server.
 */
export function makeSatellitePorts(options: {
  client: Pick<Client, 'call'>;
  /** The current wildcard host, such as `*.tokyo.dev.example.com`; null if it serves no ports. */
  portHost: () => string | null;
  isDraining: () => boolean;
  /** The URL at which this process reaches itself; null to use the public one. */
  selfUrl: () => string | null;
  trustProxy: string;
  log: Log;
}): PortGateway {
  const { client, portHost } = options;
  const verdicts = makeRequestCache<Verdict>(({ kind }) => kind === 'forward');
  let pendingVisits = 0;

  async function authorizeVisit(visit: AuthorizedPort['visit']): Promise<Verdict> {
    if (pendingVisits >= maxPendingVisits)
      throw busy(`${maxPendingVisits} requests are already waiting for the server.`);
    pendingVisits += 1;
    try {
      return await requestVerdict(client, visit);
    } finally {
      pendingVisits -= 1;
    }
  }

  const limitRechecks = pLimit(maxConcurrentRechecks);
  /** Returns a check whether an open visit is still allowed. Concurrent calls share one request. */
  function makeRecheck(visit: AuthorizedPort['visit'], key: string): () => Promise<boolean> {
    let pending: Promise<boolean> | null = null;
    const check = async () => {
      const verdict = await verdicts.read(
        key,
        () => limitRechecks(() => requestVerdict(client, visit)),
        recheckMaxAgeMs,
      );
      return verdict.kind === 'forward';
    };
    return () => {
      pending ??= check().finally(() => {
        pending = null;
      });
      return pending;
    };
  }

  const authorize: PortAuthorizer<AuthorizedPort> = (request) => {
    const suffix = portHost()?.slice(1);
    if (suffix === undefined || !hostName(request.headers.host).endsWith(suffix)) return null;
    return async () => {
      if (options.isDraining()) throw busy('This satellite is draining.');
      if (isCdeToken(request.headers.authorization))
        throw new Problem('bad-request', 'API tokens must not be sent to a satellite, which can read them.', {
          hint: "Use the port's address on the server instead. Revoke this token and create another: treat it as leaked.",
        });
      if (!request.url?.startsWith('/'))
        throw new Problem('bad-request', 'The request target must be a path.');
      const visit = visitOf(request);
      let isFresh = false;
      const load = () => {
        isFresh = true;
        return authorizeVisit(visit);
      };
      const { url: _, ...rest } = visit.head;
      // Hashed, because headers are long and thousands of verdicts are cached.
      const key = createHash('sha256').update(JSON.stringify(rest)).digest('base64');
      // A cached `forward` holds for the whole port; any other verdict may depend on the path.
      let verdict = await (isReservedPath(visit.head.url) ? load() : verdicts.read(key, load));
      if (verdict.kind !== 'forward' && !isFresh) verdict = await load();
      switch (verdict.kind) {
        case 'redirect':
        case 'reply':
          return verdict;
        case 'refuse':
          throw toProblemOf(verdict);
        case 'forward':
          return {
            kind: 'forward',
            port: { workspaceId: verdict.workspaceId, port: verdict.port, visit },
            path: visit.head.url,
            visit: { port: verdict.port, origin: verdict.origin, prefix: null, isPublic: verdict.isPublic },
            user: verdict.visitor,
            // API tokens are refused above, so it is a browser. Satellites do not learn the name.
            visitorName: verdict.visitor === undefined ? undefined : null,
            isStillAllowed: makeRecheck(visit, key),
          };
      }
    };
  };

  const sessions = makePortSessions<AuthorizedPort>(
    async ({ visit }) => {
      const key = makeClientKey();
      const verdict = await requestVerdict(client, { ...visit, clientKey: key.publicKey });
      if (verdict.kind === 'refuse') throw toProblemOf(verdict);
      if (verdict.kind !== 'forward' || !verdict.ticket) throw notShared();
      const { ticket } = verdict;
      const own = options.selfUrl();
      return openSession({
        ...ticket,
        satellites: own === null ? ticket.satellites : ticket.satellites.map((one) => ({ ...one, url: own })),
        clientPrivateKey: key.privateKey,
      });
    },
    ({ workspaceId, port }) => `${workspaceId} ${port}`,
  );

  return makePortGateway<AuthorizedPort>({
    authorizers: [authorize],
    sessions,
    trustProxy: options.trustProxy,
    toProblem,
    log: options.log,
  });
}

async function requestVerdict(
  client: Pick<Client, 'call'>,
  body: AuthorizedPort['visit'] & { clientKey?: string },
): Promise<Verdict> {
  try {
    return await client.call(authorizePortVisit, { body, signal: AbortSignal.timeout(requestTimeoutMs) });
  } catch (error) {
    // The server rejects the satellite, not the visitor.
    if (error instanceof CallError && [401, 403, 409].includes(error.status))
      return { kind: 'refuse', error: error.body };
    throw error;
  }
}

function visitOf({ method = 'GET', url = '/', headers }: RequestHead): AuthorizedPort['visit'] {
  const told: Record<string, string> = {};
  for (const name of forwardedHeaders) if (headers[name] !== undefined) told[name] = String(headers[name]);
  const ours = (headers.cookie ?? '')
    .split(';')
    .map((part) => part.trim())
    .filter((part) => cookies.includes(part.split('=', 1)[0]!));
  if (ours.length > 0) told.cookie = ours.join('; ');
  return { head: { method, url, headers: told } };
}

const toProblemOf = ({ error }: Extract<Verdict, { kind: 'refuse' }>): Problem => problemOf(error);

function problemOf({ code, message, detail, hint }: Extract<Verdict, { kind: 'refuse' }>['error']): Problem {
  // A newer server may use codes unknown to this release.
  const known = code in catalogue ? (code as ErrorCode) : 'internal';
  return new Problem(known, message, {
    ...(detail !== undefined && { detail }),
    ...(hint !== undefined && { hint }),
  });
}

/** The problem shown to a visitor for any error. */
function toProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof CallError && error.status >= 500 && error.code in catalogue)
    return problemOf(error.body);
  if (error instanceof CallError || (error as Error).name === 'TimeoutError')
    return new Problem('server-busy', 'The server cannot be reached to authorize this request.', {
      detail: (error as Error).message,
      hint: 'Try again in a few seconds. Open connections are not affected.',
      retryAfter: 2,
      cause: error,
    });
  return new Problem('internal', 'Something went wrong on our side.', {
    hint: 'Try again; if it stays, give your administrator the request id.',
    cause: error,
  });
}
