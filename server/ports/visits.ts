import { createHash } from 'node:crypto';
import { openPort } from '@cde/api/ports.ts';
import { Problem } from '@cde/api/problem.ts';
import { authorizePortVisit } from '@cde/api/satellite-ports.ts';
import type { Judge } from '@cde/satellite/ports/gateway.ts';
import { notShared } from '@cde/satellite/ports/problems.ts';
import type { FastifyInstance } from 'fastify';
import type { Tickets } from '../connections/tickets.ts';
import type { UserActor } from '../http/actor.ts';
import { serve, serveSatellite, toProblem } from '../http/serve.ts';
import type { WebSatellite } from '../satellites/store.ts';
import type { PortSite } from './names.ts';
import type { FoundPort } from './store.ts';

/** Where a satellite serves ports; null: it may serve none. Beside a dashboard of https none goes in the clear. */
export const siteOf = ({ portHost, url }: WebSatellite, accessUrl: string): PortSite | null =>
  portHost === null || (accessUrl.startsWith('https:') && !url.startsWith('https:'))
    ? null
    : { suffix: portHost.slice(1), url };

/** `/ports/open` of the dashboard asks here, where to send the browser that wants to open a port. */
export function portOpenRoutes(
  app: FastifyInstance,
  deps: {
    openByName: (who: UserActor, asked: { host: string; to: string; state: string }) => Promise<string>;
    openByPath: (who: UserActor, to: string) => Promise<string>;
  },
): void {
  serve(app, openPort, async ({ actor, body }) => {
    if (actor.via.kind !== 'cookie')
      throw new Problem('bad-request', 'Only a browser that is signed in opens a port this way.', {
        hint: 'Send the token to the port itself: Authorization: Bearer …',
      });
    const { host, to, state = '' } = body;
    const location =
      host === undefined ? deps.openByPath(actor, to) : deps.openByName(actor, { host, to, state });
    return { location: await location };
  });
}

/**
 * Judges for satellites what is asked of them under their wildcard names, as it is judged for what is asked of
 * the server itself, and gives them tickets that open the one port. What a satellite could do by asking more than it
 * was asked itself: open ports that are public, and those of visitors whose cookie for that very name it was shown.
 */
export function portVisitRoutes(
  app: FastifyInstance,
  deps: {
    /** What is asked under the names of a site. */
    judge: (site: PortSite) => Judge<FoundPort>;
    /** The satellites that may serve browsers, by id. */
    webSatellite: (id: string) => Promise<WebSatellite | null>;
    issueTicket: Tickets;
    /** The dashboard's. */
    accessUrl: string;
  },
): void {
  serveSatellite(app, authorizePortVisit, async ({ actor, body, ip }) => {
    const satellite = await deps.webSatellite(actor.satelliteId);
    const site = satellite && siteOf(satellite, deps.accessUrl);
    if (!site)
      throw new Problem('satellite-web-off', `The satellite ${actor.name} serves no ports.`, {
        hint: satellite?.portHost
          ? `Its --url is ${satellite.url}; beside a dashboard of https it has to be https too.`
          : `An owner allows it: cde satellite web ${actor.name} --port-host '*.…'`,
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
      // Of the visitor's request. Ours that fails is an answer of its own, and decides nothing.
      if (problem.status >= 500) throw problem;
      return { kind: 'refuse' as const, error: problem.toBody('') };
    }
  });
}

/** Tells the same user from others at one satellite, and is of no use at another. */
const pseudonym = (satelliteId: string, userId: string) =>
  createHash('sha256').update(`${satelliteId} ${userId}`).digest('base64url');
