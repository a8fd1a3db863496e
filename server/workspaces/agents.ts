import type { AgentActivity, IdleReply, NoActivity } from '@cde/api/activity.ts';
import type { AgentLogLine, AgentManifest, AgentStats } from '@cde/api/agent.ts';
import { Problem } from '@cde/api/problem.ts';
import { embeddedSatellite } from '@cde/tunnel/auth/ticket.ts';
import { and, eq, isNotNull } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { builds, type StartupReport, users, workspaces } from '../database/schema.ts';
import type { Bus } from '../events/bus.ts';
import type { AgentActor } from '../http/actor.ts';
import type { Keys } from '../identity/keys.ts';
import type { ActivityReports } from '../idle/reports.ts';
import type { Provider } from '../providers/provider.ts';
import { parseDuration } from '../providers/quantity.ts';
import type { ConnectionPolicy } from '../satellites/policy.ts';
import type { SatelliteRegistry } from '../satellites/registry.ts';
import { recordConnectionEvent } from '../telemetry/connection-events.ts';
import { appendLog, type NewLine } from './builds/build-log.ts';
import { enqueueReconcile } from './queue.ts';

/** How long an agent can listen at satellites without contacting the server. */
const listenTokenMs = 3600_000;
const statsEveryMs = 30_000;

interface Deps {
  database: Database;
  bus: Bus;
  now: () => Date;
  keys: Keys;
  /** The satellites that agents listen at. */
  satellites: SatelliteRegistry['forAgents'];
  policy: ConnectionPolicy;
  reports: Pick<ActivityReports, 'record'>;
  cancelIdleStop: (workspaceId: string) => Promise<void>;
  providers: ReadonlyMap<string, Pick<Provider, 'describeHome'>>;
}

/** Handles what agents report: it records the facts and wakes the workspace's queue, which acts on them. */
export function makeAgents(deps: Deps) {
  const { database, bus, now, keys, satellites, policy, providers, reports, cancelIdleStop } = deps;
  const { db } = database;

  async function loadBuild(actor: AgentActor) {
    const [row] = await db
      .select({ workspace: workspaces, build: builds, owner: users.username })
      .from(workspaces)
      .innerJoin(builds, eq(builds.id, actor.buildId))
      .innerJoin(users, eq(users.id, workspaces.ownerId))
      .where(eq(workspaces.id, actor.workspaceId));
    if (!row) throw new Problem('agent-superseded', 'This workspace no longer exists.');
    return row;
  }

  /** Matches only while the agent's build is current: a newer one may have taken over since the request was authenticated. */
  const ownsWorkspace = (actor: AgentActor) =>
    and(eq(workspaces.id, actor.workspaceId), eq(workspaces.agentBuildId, actor.buildId));

  /** The build that waits for the shutdown script, whose output belongs to it. An idle workspace has none yet. */
  async function waitingBuild(workspaceId: string): Promise<string | null> {
    const [build] = await db
      .select({ id: builds.id })
      .from(builds)
      .where(
        and(eq(builds.workspaceId, workspaceId), isNotNull(builds.shutdown), eq(builds.status, 'running')),
      );
    return build?.id ?? null;
  }

  async function satellitesFor(buildId: string) {
    const { regions } = await policy.forBuild(buildId);
    return (await satellites(regions)).map(({ region: _, ...location }) => location);
  }

  return {
    async register(
      actor: AgentActor,
      input: { tlsPublicKey: string; sshHostKey: string; version: string },
    ): Promise<AgentManifest> {
      const { workspace, build, owner } = await loadBuild(actor);
      const home =
        providers.get(workspace.provider)?.describeHome(workspace.providerState).directory ??
        `/home/${owner}`;
      await db.transaction(async (tx) => {
        await tx
          .update(workspaces)
          .set({
            agentTlsKey: input.tlsPublicKey,
            agentSshHostKey: input.sshHostKey,
            agentVersion: input.version,
            homeDirectory: home,
            agentSeenAt: now(),
          })
          .where(ownsWorkspace(actor));
        // A process that registers again has the same key.
        if (workspace.agentTlsKey !== input.tlsPublicKey)
          await recordConnectionEvent(tx, {
            ...{ kind: 'agent-started', at: now(), workspaceId: actor.workspaceId },
          });
        await enqueueReconcile(tx, actor.workspaceId);
      });
      bus.publish({ workspaceId: actor.workspaceId, buildId: actor.buildId });
      const { paths, direct } = await policy.forBuild(build.id);
      const expires = new Date(now().getTime() + listenTokenMs);
      // A satellite that sees a token can listen for this workspace with it, so each token is valid at one satellite only.
      const listenToken = (satellite: string) =>
        keys.tickets.signListenToken({
          workspaceId: workspace.id,
          buildId: build.id,
          satellite,
          exp: Math.floor(expires.getTime() / 1000),
        });
      const startup = build.rendered?.startup;
      const finished = build.startup?.state === 'done' || build.startup?.state === 'none';
      return {
        workspaceId: workspace.id,
        workspace: `${owner}/${workspace.name}`,
        buildId: build.id,
        username: owner,
        home,
        env: Object.fromEntries(
          Object.entries(build.rendered?.env ?? {}).map(([name, value]) => [name, String(value)]),
        ),
        startup:
          startup && !finished
            ? { script: startup.script, timeoutMs: parseDuration(startup.timeout) ?? 600_000 }
            : null,
        hasShutdownScript: build.rendered?.shutdown !== undefined,
        ticketKeys: [keys.tickets.publicKey],
        satellites: await Promise.all(
          (await satellitesFor(build.id)).map(async ({ id, ...location }) => ({
            ...location,
            listenToken: await listenToken(id ?? embeddedSatellite),
          })),
        ),
        paths,
        direct,
        listenToken: await listenToken(embeddedSatellite),
        listenTokenExpiresAt: expires.toISOString(),
        statsEveryMs,
      };
    },

    async appendLogs(actor: AgentActor, process: string, lines: AgentLogLine[]): Promise<void> {
      const toLine = (line: AgentLogLine): NewLine => ({
        at: new Date(line.at),
        stage: line.source === 'startup' ? 'startup' : line.source === 'shutdown' ? 'provision' : 'agent',
        source: line.source,
        level: 'info',
        text: line.text,
        agent: { process, seq: line.seq },
      });
      const ofShutdown = lines.filter(({ source }) => source === 'shutdown');
      const waiting = ofShutdown.length > 0 ? await waitingBuild(actor.workspaceId) : null;
      const others = waiting ? lines.filter(({ source }) => source !== 'shutdown') : lines;
      await db.transaction(async (tx) => {
        if (others.length > 0) await appendLog(tx, actor.buildId, others.map(toLine));
        if (waiting) await appendLog(tx, waiting, ofShutdown.map(toLine));
      });
      if (waiting) bus.publish({ workspaceId: actor.workspaceId, buildId: waiting });
      bus.publish({ workspaceId: actor.workspaceId, buildId: actor.buildId });
    },

    async reportStartup(actor: AgentActor, report: StartupReport): Promise<void> {
      await db.transaction(async (tx) => {
        const [build] = await tx
          .select({ startup: builds.startup })
          .from(builds)
          .where(eq(builds.id, actor.buildId))
          .for('update');
        // The first reported end is final: a restarted agent must not undo it.
        if (build?.startup?.state === 'done' || build?.startup?.state === 'none') return;
        await tx.update(builds).set({ startup: report }).where(eq(builds.id, actor.buildId));
        await enqueueReconcile(tx, actor.workspaceId);
      });
    },

    async recordStats(
      actor: AgentActor,
      { activity, ...stats }: AgentStats & { activity?: AgentActivity | NoActivity | undefined },
    ): Promise<{ satellites: { name: string; url: string; stun?: string }[]; idle?: IdleReply | null }> {
      await db.update(workspaces).set({ agentStats: stats, agentSeenAt: now() }).where(ownsWorkspace(actor));
      const recorded = activity ? await reports.record(actor, activity) : null;
      if (recorded?.cancelsStop) await cancelIdleStop(actor.workspaceId);
      bus.publish({ workspaceId: actor.workspaceId });
      return {
        satellites: (await satellitesFor(actor.buildId)).map(({ id: _, ...location }) => location),
        ...(recorded && { idle: recorded.idle }),
      };
    },
  };
}

export type Agents = ReturnType<typeof makeAgents>;
