import { Problem } from '@cde/api/problem.ts';
import * as api from '@cde/api/satellite-terminals.ts';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import type { Database } from '../database/pool.ts';
import { serve, serveSatellite } from '../http/serve.ts';
import type { Keys } from '../identity/keys.ts';
import type { ConnectionPolicy } from '../satellites/policy.ts';
import type { SatelliteRegistry } from '../satellites/registry.ts';
import type { SatelliteStore } from '../satellites/store.ts';
import { findWorkspace } from '../workspaces/store.ts';
import { makeAdmissions } from './admissions.ts';
import type { ConnectionAudit } from './connection-audit.ts';
import type { Tickets } from './tickets.ts';

/**
 * Terminals that a satellite serves: where a browser may open one, the ticket for it, and whether it may go on.
 * A satellite learns by a code that a browser has shown it, and gets by it no more than that browser's terminals of
 * one workspace, for as long as its session lasts.
 */
export function satelliteTerminalRoutes(
  app: FastifyInstance,
  deps: {
    database: Database;
    keys: Pick<Keys, 'derive'>;
    now: () => Date;
    store: Pick<SatelliteStore, 'listWebSatellites' | 'findWebSatellite'>;
    /** The server's own satellites among them, by their names. */
    forAgents: SatelliteRegistry['forAgents'];
    policy: ConnectionPolicy;
    issueTicket: Tickets;
    config: Pick<Config, 'accessUrl'>;
    audit: ConnectionAudit;
  },
): void {
  const { database, store, policy, issueTicket } = deps;
  const admissions = makeAdmissions(deps);
  // A page that came by https opens nothing that is plain. At the dashboard's own address its cookies would go along, and a
  // satellite that gives that for its own could have another workspace's terminal opened.
  const isUsable = ({ url }: { url: string }) =>
    (url.startsWith('https:') || !deps.config.accessUrl.startsWith('https:')) &&
    new URL(url).host !== new URL(deps.config.accessUrl).host;

  serve(app, api.listTerminalRoutes, async ({ actor, params, request }) => {
    const { row } = await findWorkspace(database.db, actor, params.workspace, 'workspace:connect');
    const { paths, regions } = await policy.forBuild(row.agentBuildId);
    const known = row.agentStats?.satellites ?? [];
    const rttTo = (url: string) => known.find((each) => each.url === url)?.rttMs ?? null;
    const own = (await deps.forAgents(regions))
      .filter(({ name }) => /^embedded(-|$)/.test(name))
      .flatMap(({ url }) => rttTo(url) ?? []);
    const { via } = actor;
    // Satellites admit pages of the access URL's origin alone.
    const isOurPage =
      via.kind === 'cookie' && request.headers.origin === new URL(deps.config.accessUrl).origin;
    const satellites =
      isOurPage && paths.includes('relay')
        ? (await store.listWebSatellites()).filter(
            (each) => isUsable(each) && (regions?.includes(each.region) ?? true),
          )
        : [];
    return {
      own: { agentRttMs: own.length > 0 ? Math.min(...own) : null },
      satellites: await Promise.all(
        satellites.map(async ({ id, name, region, url }) => ({
          name,
          region,
          url,
          agentRttMs: rttTo(url),
          code: (await admissions.signCode({ sid: via.id, workspaceId: row.id, satelliteId: id })).text,
        })),
      ),
    };
  });

  serveSatellite(app, api.openSatelliteTerminal, async ({ actor, body, requestId, ip }) => {
    if (!(await store.findWebSatellite(actor.satelliteId)))
      throw new Problem('satellite-web-off', `The satellite ${actor.name} may serve no terminals.`, {
        hint: `An owner allows it: cde satellite web ${actor.name}`,
      });
    const claims = await admissions.readCode(body.code);
    if (claims?.satelliteId !== actor.satelliteId)
      throw new Problem('forbidden', 'The code opens no terminal here.', {
        detail: claims ? 'It is for another satellite.' : 'It was not made here, or a minute has passed.',
        hint: 'Open the terminal anew from the dashboard.',
      });
    const [user] = await admissions.authorizedUsers([claims]);
    if (!user)
      throw new Problem('forbidden', 'You may open no terminal of this workspace any more.', {
        hint: 'Sign in to the dashboard again.',
      });
    const ticket = await issueTicket(user, claims.workspaceId, body.clientKey, {
      only: ['ssh'],
      satellite: actor.name,
    });
    await deps.audit.record({ actor: user, requestId, ip }, ticket, 'satellite-terminal');
    const { text, until } = await admissions.sign(claims);
    return { ...ticket, admission: text, admittedUntil: until.toISOString() };
  });

  serveSatellite(app, api.checkSatelliteTerminals, async ({ actor, body }) => {
    const web = (await store.findWebSatellite(actor.satelliteId)) !== null;
    const claims = await Promise.all(body.admissions.map(admissions.read));
    const good = claims.flatMap((each, index) =>
      each?.satelliteId === actor.satelliteId ? [{ each, index }] : [],
    );
    const users = await admissions.authorizedUsers(good.map(({ each }) => each!));
    const standing = new Set(good.filter((_, at) => users[at] !== null).map(({ index }) => index));
    return { web, ended: claims.flatMap((_, index) => (standing.has(index) ? [] : [index])) };
  });
}
