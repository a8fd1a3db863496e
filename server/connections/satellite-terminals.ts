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
 * Terminals that satellites serve: where a browser can open one, the ticket for it, and whether it is still allowed.
 * A browser hands the satellite a code, which opens the terminals of one workspace for as long as that browser's
 * session lasts, and nothing else.
 */
export function satelliteTerminalRoutes(
  app: FastifyInstance,
  deps: {
    database: Database;
    keys: Pick<Keys, 'derive'>;
    now: () => Date;
    store: Pick<SatelliteStore, 'listWebSatellites' | 'findWebSatellite'>;
    /** Includes the server's own satellites, recognized by their names. */
    forAgents: SatelliteRegistry['forAgents'];
    policy: ConnectionPolicy;
    issueTicket: Tickets;
    config: Pick<Config, 'accessUrl'>;
    audit: ConnectionAudit;
  },
): void {
  const { database, store, policy, issueTicket } = deps;
  const admissions = makeAdmissions(deps);
  // A page served over https cannot open plain http. A satellite at the dashboard's own address would receive its cookies,
  // and could use them to open another workspace's terminal.
  const isUsable = ({ url }: { url: string }) =>
    (url.startsWith('https:') || !deps.config.accessUrl.startsWith('https:')) &&
    new URL(url).host !== new URL(deps.config.accessUrl).host;

  serve(app, api.listTerminalRoutes, async ({ actor, params, request }) => {
    const { row } = await findWorkspace(database.db, actor, params.workspace, 'workspace:connect');
    const { paths, regions } = await policy.forBuild(row.agentBuildId);
    const measured = row.agentStats?.satellites ?? [];
    const rttTo = (url: string) => measured.find((each) => each.url === url)?.rttMs ?? null;
    const own = (await deps.forAgents(regions))
      .filter(({ name }) => /^embedded(-|$)/.test(name))
      .flatMap(({ url }) => rttTo(url) ?? []);
    const { via } = actor;
    // Satellites accept only pages from the access URL's origin.
    const isDashboard =
      via.kind === 'cookie' && request.headers.origin === new URL(deps.config.accessUrl).origin;
    const satellites =
      isDashboard && paths.includes('relay')
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
      throw new Problem('satellite-web-off', `The satellite ${actor.name} does not serve browsers.`, {
        hint: 'Ask an owner to allow it.',
        actions: [{ kind: 'allow-satellite-web', satellite: actor.name }],
      });
    const claims = await admissions.readCode(body.code);
    if (claims?.satelliteId !== actor.satelliteId)
      throw new Problem('forbidden', 'This code does not open a terminal here.', {
        detail: claims ? 'It is for another satellite.' : 'It is invalid or more than a minute old.',
        hint: 'Open the terminal again from the dashboard.',
      });
    const [user] = await admissions.authorizedUsers([claims]);
    if (!user)
      throw new Problem('forbidden', 'You can no longer open terminals of this workspace.', {
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
    const valid = claims.flatMap((each, index) =>
      each?.satelliteId === actor.satelliteId ? [{ each, index }] : [],
    );
    const users = await admissions.authorizedUsers(valid.map(({ each }) => each!));
    const allowed = new Set(valid.filter((_, at) => users[at] !== null).map(({ index }) => index));
    return { web, ended: claims.flatMap((_, index) => (allowed.has(index) ? [] : [index])) };
  });
}
