import { listPorts, type PortLevel, sharePort, unsharePort, type WorkspacePort } from '@cde/api/ports.ts';
import { Problem } from '@cde/api/problem.ts';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import type { Database } from '../database/pool.ts';
import { serve } from '../http/serve.ts';
import { writeAudit } from '../identity/audit/audit.ts';
import type { ConnectionPolicy } from '../satellites/policy.ts';
import type { WebSatellite } from '../satellites/store.ts';
import { findWorkspace, type WorkspaceRow } from '../workspaces/store.ts';
import { capLevel, type PortLookup } from './authorize.ts';
import { portLabel, portOrigin, portPath } from './names.ts';
import { listShares, setShare } from './store.ts';
import { siteOf } from './visits.ts';

/** `/workspaces/:workspace/ports`: which ports listen, and whom they are shared with. */
export function portRoutes(
  app: FastifyInstance,
  {
    access,
    config,
    database,
    now,
    policy,
    satellites,
  }: {
    access: PortLookup;
    config: Config;
    database: Database;
    now: () => Date;
    policy: ConnectionPolicy;
    /** The satellites that can serve browsers. */
    satellites: () => Promise<WebSatellite[]>;
  },
): void {
  /** The satellites that can serve the workspace's ports. */
  async function sitesOf(row: WorkspaceRow): Promise<WebSatellite[]> {
    const { paths, regions } = await policy.forBuild(row.agentBuildId);
    if (!paths.includes('relay')) return [];
    return (await satellites()).filter(({ region }) => regions?.includes(region) ?? true);
  }
  function show(
    row: WorkspaceRow,
    owner: string,
    port: number,
    level: PortLevel | null,
    sites: readonly WebSatellite[],
  ): WorkspacePort {
    const listener = listening(row).find((open) => open.port === port);
    const limitedTo = capLevel(level, config.portSharing);
    return {
      port,
      listening: listener !== undefined,
      process: listener?.process ?? null,
      level,
      limitedTo,
      url: limitedTo === null ? null : portUrl(row, owner, port),
      elsewhere:
        limitedTo === null
          ? []
          : sites.flatMap((satellite) => {
              const site = siteOf(satellite, config.accessUrl);
              if (!site) return [];
              const label = portLabel({ owner, name: row.name, id: row.id, port });
              return [
                { satellite: satellite.name, region: satellite.region, url: `${portOrigin(site, label)}/` },
              ];
            }),
    };
  }
  function portUrl({ id, name }: WorkspaceRow, owner: string, port: number): string {
    return config.portHost === null
      ? `${config.accessUrl}${portPath({ owner, name, port })}/`
      : `${portOrigin({ suffix: config.portHost, url: config.accessUrl }, portLabel({ owner, name, id, port }))}/`;
  }
  const listening = (row: WorkspaceRow) =>
    row.status === 'running' ? (row.agentStats?.openPorts ?? []) : [];

  serve(app, listPorts, async ({ actor, params }) => {
    const { row, owner } = await findWorkspace(database.db, actor, params.workspace, 'workspace:read');
    const shares = await listShares(database.db, row.id);
    const sites = await sitesOf(row);
    const ports = new Set([...listening(row), ...shares].map(({ port }) => port));
    return {
      items: [...ports]
        .sort((one, other) => one - other)
        .map((port) =>
          show(row, owner, port, shares.find((share) => share.port === port)?.level ?? null, sites),
        ),
      mostLevel: config.portSharing,
      by: config.portHost === null ? ('path' as const) : ('name' as const),
      reportedAt: row.status === 'running' ? (row.agentStats?.at ?? null) : null,
    };
  });

  serve(app, sharePort, async (input) => {
    const { port } = input.params;
    const { level } = input.body;
    // Sharing gives others access, so it needs the owner's permission.
    const { row, owner } = await findWorkspace(
      database.db,
      input.actor,
      input.params.workspace,
      'workspace:connect',
    );
    if (row.status === 'deleted' || row.status === 'deleting')
      throw new Problem('workspace-deleted', `${owner}/${row.name} is deleted.`);
    if (capLevel(level, config.portSharing) !== level)
      throw new Problem('port-sharing-limited', `This server does not allow sharing ports ${words[level]}.`, {
        detail:
          config.portSharing === 'off'
            ? 'Sharing is off (--port-sharing off).'
            : `The highest level it allows is ${config.portSharing} (--port-sharing).`,
        hint: 'Choose a lower level, or ask an administrator. Forwarding the port to your machine works without sharing.',
        actions: [{ kind: 'forward-port', workspace: `${owner}/${row.name}`, port }],
      });
    await database.db.transaction(async (tx) => {
      const before = await setShare(tx, { workspaceId: row.id, port, level }, now());
      if (before === level) return;
      await writeAudit(tx, input, {
        action: 'workspace.port-share',
        targetType: 'workspace',
        targetId: row.id,
        targetName: `${owner}/${row.name}`,
        before: before && { port, level: before },
        after: { port, level },
      });
    });
    access.forgetPorts();
    return show(row, owner, port, level, await sitesOf(row));
  });

  serve(app, unsharePort, async (input) => {
    const { port } = input.params;
    const { row, owner } = await findWorkspace(
      database.db,
      input.actor,
      input.params.workspace,
      'workspace:operate',
    );
    await database.db.transaction(async (tx) => {
      const before = await setShare(tx, { workspaceId: row.id, port, level: null }, now());
      if (before === null) return;
      await writeAudit(tx, input, {
        action: 'workspace.port-unshare',
        targetType: 'workspace',
        targetId: row.id,
        targetName: `${owner}/${row.name}`,
        before: { port, level: before },
      });
    });
    access.forgetPorts();
  });
}

const words: Record<PortLevel, string> = {
  owner: 'at all, not even with their owner',
  'signed-in': 'with everyone who is signed in',
  public: 'publicly',
};
