import { createHash } from 'node:crypto';
import type { Client } from '@cde/api/client.ts';
import { CallError } from '@cde/api/client.ts';
import { catalogue, type ErrorCode, Problem } from '@cde/api/problem.ts';
import { authorizePortVisit } from '@cde/api/satellite-ports.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { openSession } from '@cde/tunnel/session/session.ts';
import type { z } from 'zod';
import { makePortGateway, type PortAuthorizer, type PortGateway, type RequestHead } from './gateway.ts';
import { isCdeToken, portCookie, stateCookie } from './headers.ts';
import { hostName, isReservedPath } from './names.ts';
import { busy, notShared } from './problems.ts';
import { makeQueue } from './queue.ts';
import { makeRequestCache } from './request-cache.ts';
import { makePortSessions, type PortTarget } from './sessions.ts';

type Verdict = z.output<NonNullable<typeof authorizePortVisit.reply>>;

/** With what the server was asked, to be asked again for a ticket. */
interface AuthorizedPort extends PortTarget {
  visit: { head: { method: string; url: string; headers: Record<string, string> } };
}

/** Of a request's headers, what the server's judging takes. Authorization is none: a token of ours is not for satellites. */
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
/** Whether a visit may go on is asked every four seconds, and the server may remember two: no more is to be added. */
const recheckMaxAgeMs = 500;
/** At once: whoever asks for made-up names must not make us one who floods the server. */
const maxPendingVisits = 200;
/** At once, of what is open. The others wait: none is left out, however many there are. */
const maxConcurrentRechecks = 50;

/**
 * Ports in the browser at a satellite: the server judges each visit, we carry it. A verdict is remembered for two
 * seconds, as the server itself remembers.
 */
export function makeSatellitePorts(options: {
  client: Pick<Client, 'call'>;
  /** The wildcard name of the moment, `*.tokyo.dev.example.com`; null: no ports are served. */
  portHost: () => string | null;
  /** True: it is being emptied. */
  isDraining: () => boolean;
  /** This satellite, as this process reaches it; null: by the address that everybody takes. */
  selfUrl: () => string | null;
  trustProxy: string;
  log: Log;
}): PortGateway {
  const { client, portHost } = options;
  const verdicts = makeRequestCache<Verdict>(({ kind }) => kind === 'forward');
  let pendingVisits = 0;

  async function authorizeVisit(visit: AuthorizedPort['visit']): Promise<Verdict> {
    if (pendingVisits >= maxPendingVisits)
      throw busy(`${maxPendingVisits} visitors wait for the server's word already.`);
    pendingVisits += 1;
    try {
      return await requestVerdict(client, visit);
    } finally {
      pendingVisits -= 1;
    }
  }

  const queue = makeQueue(maxConcurrentRechecks);
  /** Whether what this question opened may go on. Once at a time: a server that is slow gets no more of them. */
  function makeRecheck(visit: AuthorizedPort['visit'], key: string): () => Promise<boolean> {
    let asking: Promise<boolean> | null = null;
    const ask = async () => {
      const verdict = await verdicts.read(
        key,
        () => queue(() => requestVerdict(client, visit)),
        recheckMaxAgeMs,
      );
      return verdict.kind === 'forward';
    };
    return () => {
      asking ??= ask().finally(() => {
        asking = null;
      });
      return asking;
    };
  }

  const authorize: PortAuthorizer<AuthorizedPort> = (request) => {
    const suffix = portHost()?.slice(1);
    if (suffix === undefined || !hostName(request.headers.host).endsWith(suffix)) return null;
    return async () => {
      if (options.isDraining()) throw busy('This satellite is being emptied.');
      if (isCdeToken(request.headers.authorization))
        throw new Problem(
          'bad-request',
          'A token of cde is not for a satellite: it reads what passes here.',
          {
            hint: "Use the port's address on the server instead. Revoke this token and create another: treat it as leaked.",
          },
        );
      if (!request.url?.startsWith('/')) throw new Problem('bad-request', 'Ask for a path.');
      const visit = visitOf(request);
      let asked = false;
      const ask = () => {
        asked = true;
        return authorizeVisit(visit);
      };
      const { url: _, ...rest } = visit.head;
      // Headers are long, and thousands of verdicts are remembered.
      const key = createHash('sha256').update(JSON.stringify(rest)).digest('base64');
      // A yes is for the whole port. What else it says may be about this path, and is nobody's who asked for another.
      let verdict = await (isReservedPath(visit.head.url) ? ask() : verdicts.read(key, ask));
      if (verdict.kind !== 'forward' && !asked) verdict = await ask();
      switch (verdict.kind) {
        case 'redirect':
        case 'reply':
          return verdict;
        case 'refuse':
          throw toProblemOf(verdict);
        case 'forward':
          return {
            kind: 'forward',
            port: { workspaceId: verdict.workspaceId, port: verdict.port, visit: visit },
            path: visit.head.url,
            visit: { port: verdict.port, origin: verdict.origin, prefix: null, isPublic: verdict.isPublic },
            user: verdict.visitor,
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
    // Not of the visitor: this satellite may serve nobody (any more).
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
  // A newer server may know codes that we do not.
  const known = code in catalogue ? (code as ErrorCode) : 'internal';
  return new Problem(known, message, {
    ...(detail !== undefined && { detail }),
    ...(hint !== undefined && { hint }),
  });
}

/** What a visitor is told of an error that is no Problem. */
function toProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof CallError && error.status >= 500 && error.code in catalogue)
    return problemOf(error.body);
  if (error instanceof CallError || (error as Error).name === 'TimeoutError')
    return new Problem('server-busy', 'The server could not be asked whether you may open this port.', {
      detail: (error as Error).message,
      hint: 'Try again in a few seconds. What is open already stays open.',
      retryAfter: 2,
      cause: error,
    });
  return new Problem('internal', 'Something went wrong on our side.', {
    hint: 'Try again; if it stays, give your administrator the request id.',
    cause: error,
  });
}
