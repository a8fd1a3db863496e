import { createHash } from 'node:crypto';
import { openPort } from '@cde/api/ports.ts';
import { Problem } from '@cde/api/problem.ts';
import { authorizePortVisit } from '@cde/api/satellite-ports.ts';
import type { PortAuthorizer } from '@cde/satellite/ports/gateway.ts';
import { notShared } from '@cde/satellite/ports/problems.ts';
import type { FastifyInstance } from 'fastify';
import type { Tickets } from '../connections/tickets.ts';
import type { UserActor } from '../http/actor.ts';
import { serve, serveSatellite, toProblem } from '../http/serve.ts';
import type { WebSatellite } from '../satellites/store.ts';
import type { PortSite } from './names.ts';
import type { FoundPort } from './store.ts';

/** Where a satellite serves ports; null if it does not. With a dashboard on https, only satellites on https do. */
export const siteOf = ({ portHost, url }: WebSatellite, accessUrl: string): PortSite | null =>
  portHost === null || (accessUrl.startsWith('https:') && !url.startsWith('https:'))
    ? null
    : { suffix: portHost.slice(1), url };

/** Tells the dashboard's `/ports/open` page where to send a browser that opens a port. */
export function portOpenRoutes(
  app: FastifyInstance,
  deps: {
    openByName: (who: UserActor, asked: { host: string; to: string; state: string }) => Promise<string>;
    openByPath: (who: UserActor, to: string) => Promise<string>;
  },
): void {
  serve(app, openPort, async ({ actor, body }) => {
    if (actor.via.kind !== 'cookie')
      throw new Problem('bad-request', 'Only a signed-in browser can open a port this way.', {
        hint: 'Send the token to the port itself: Authorization: Bearer …',
      });
    const { host, to, state = '' } = body;
    const location =
      host === undefined ? deps.openByPath(actor, to) : deps.openByName(actor, { host, to, state });
    return { location: await location };
  });
}

/**
 * Routes and authorizes the requests that satellites receive under their wildcard names, as for the server's own, and
 * issues tickets that open that one port. A satellite that makes up requests can open public ports, and ports of
 * visitors who have sent it their cookie for that name, but nothing else.
 */
export function portVisitRoutes(
  app: FastifyInstance,
  deps: {
    /** Routes requests under the names of a site. */
    judge: (site: PortSite) => PortAuthorizer<FoundPort>;
    /** Finds a satellite that can serve browsers. */
    webSatellite: (id: string) => Promise<WebSatellite | null>;
    issueTicket: Tickets;
    accessUrl: string;
  },
): void {
  serveSatellite(app, authorizePortVisit, async ({ actor, body, ip }) => {
    const satellite = await deps.webSatellite(actor.satelliteId);
    const site = satellite && siteOf(satellite, deps.accessUrl);
    if (!site)
      throw new Problem('satellite-web-off', `The satellite ${actor.name} serves no ports.`, {
        hint: satellite?.portHost
          ? `Its --url is ${satellite.url}. The dashboard is on https, so the satellite has to be too.`
          : 'An owner of this installation can allow it, and choose the host name of its ports.',
        ...(!satellite?.portHost && {
          actions: [{ kind: 'allow-satellite-web', satellite: actor.name }],
        }),
      });
    try {
      const judged = deps.judge(site)({ ...body.head, ip });
      if (!judged) throw notShared();
      const answer = await judged();
      if (answer.kind !== 'forward') return answer;
      const { port, visit } = answer;
      return {
        kind: 'forward' as const,
        workspaceId: port.workspaceId,
        port: port.port,
        origin: visit.origin,
        isPublic: visit.isPublic,
        ...(answer.user !== undefined && { visitor: pseudonym(satellite.id, answer.user) }),
        ...(body.clientKey !== undefined && {
          ticket: await deps.issueTicket(port.owner, port.workspaceId, body.clientKey, {
            only: [`tcp:localhost:${port.port}`],
            satellite: satellite.name,
          }),
        }),
      };
    } catch (error) {
      const problem = toProblem(error);
      // A server error decides nothing about the visitor's request.
      if (problem.status >= 500) throw problem;
      return { kind: 'refuse' as const, error: problem.toBody('') };
    }
  });
}

/** Identifies a user at one satellite, and cannot be linked across satellites. */
const pseudonym = (satelliteId: string, userId: string) =>
  createHash('sha256').update(`${satelliteId} ${userId}`).digest('base64url');
