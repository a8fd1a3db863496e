import type { AgentActivity, ShutdownRequest, StopCause } from '@cde/api/activity.ts';
import { and, desc, eq } from 'drizzle-orm';
import type { Database } from '../../database/pool.ts';
import { builds, workspaces } from '../../database/schema.ts';
import type { Bus } from '../../events/bus.ts';
import type { AgentActor } from '../../http/actor.ts';
import type { ShutdownScript } from '../../idle/policy-source.ts';
import type { ActivityReports } from '../../idle/reports.ts';
import type { Logger } from '../../log.ts';
import { appendLog, type NewLine } from '../builds/build-log.ts';
import { unfinishedBuilds } from '../builds/build-store.ts';
import { requestUnattended } from '../builds/request-unattended.ts';
import { enqueueReconcile } from '../queue.ts';
import { advanceStages } from '../statuses.ts';
import { serverLine } from '../steps/log-lines.ts';
import { lockWorkspace } from '../store.ts';

interface ShutdownAnswer {
  id: string;
  state: 'vetoed' | 'ready';
  activity: AgentActivity;
  exitCode?: number | null;
  timedOut?: boolean;
}

/** Asks agents to prepare for stops, and acts on their answers. */
export function makeShutdowns(deps: {
  database: Database;
  bus: Bus;
  log: Logger;
  now: () => Date;
  reports: Pick<ActivityReports, 'pendingShutdown' | 'answer'>;
  /** Of what a build has started. */
  shutdownScript: (buildId: string) => Promise<ShutdownScript | null>;
}) {
  const { database, bus, log, now, reports, shutdownScript } = deps;
  const { db } = database;

  /** The build that waits for this agent's shutdown script: a stop, a restart or an update. */
  async function requestedByBuild(actor: AgentActor): Promise<ShutdownRequest | null> {
    const [row] = await db
      .select({
        id: builds.id,
        shutdown: builds.shutdown,
        options: builds.options,
      })
      .from(builds)
      .innerJoin(workspaces, eq(workspaces.id, builds.workspaceId))
      .where(
        and(
          eq(builds.workspaceId, actor.workspaceId),
          eq(builds.status, 'running'),
          eq(workspaces.agentBuildId, actor.buildId),
        ),
      )
      .orderBy(desc(builds.number))
      .limit(1);
    if (row?.shutdown?.state !== 'requested') return null;
    const script = await shutdownScript(actor.buildId);
    const cause = row.options.stopCause ?? 'request';
    return script ? { id: row.id, cause, idleSinceAgeMs: null, ...script } : null;
  }

  const find = async (actor: AgentActor) =>
    (await requestedByBuild(actor)) ?? (await reports.pendingShutdown(actor));

  async function answerBuild(actor: AgentActor, answer: ShutdownAnswer): Promise<void> {
    const at = now();
    const { exitCode = null, timedOut = false } = answer;
    await db.transaction(async (tx) => {
      const [build] = await tx
        .select({ shutdown: builds.shutdown })
        .from(builds)
        .where(and(eq(builds.id, answer.id), eq(builds.workspaceId, actor.workspaceId)))
        .for('update');
      if (build?.shutdown?.state !== 'requested') return;
      await tx
        .update(builds)
        .set({ shutdown: { state: 'ready', exitCode, timedOut } })
        .where(eq(builds.id, answer.id));
      await appendLog(tx, answer.id, scriptLines(at, answer));
      await enqueueReconcile(tx, actor.workspaceId);
    });
    bus.publish({ workspaceId: actor.workspaceId, buildId: answer.id });
  }

  async function requestStop(request: {
    workspaceId: string;
    cause: StopCause;
    reason: string;
    isIdleStop: boolean;
    /** Of the shutdown script. */
    lines?: NewLine[];
  }): Promise<void> {
    const { workspaceId, cause, reason, isIdleStop, lines = [] } = request;
    const build = await requestUnattended(
      { database, bus, now, log },
      {
        workspaceId,
        transition: 'stop',
        reason,
        isIdleStop,
        stopCause: cause,
        action: `cleanup.stop-${cause}`,
      },
    );
    if (build && lines.length > 0) await db.transaction((tx) => appendLog(tx, build.id, lines));
  }

  /** Cancels the stop of an idle workspace if it has not begun. */
  async function cancelIdleStop(workspaceId: string): Promise<void> {
    const at = now();
    await db.transaction(async (tx) => {
      const workspace = await lockWorkspace(tx, workspaceId);
      const build = (await unfinishedBuilds(tx, workspaceId)).at(-1);
      if (!workspace || build?.status !== 'queued' || !build.options.isIdleStop) return;
      await tx
        .update(builds)
        .set({
          status: 'cancelled',
          finishedAt: at,
          stages: advanceStages(build.stages, null, at, 'cancelled'),
        })
        .where(eq(builds.id, build.id));
      // The revision makes a step that has read the queued build start over.
      await tx
        .update(workspaces)
        .set({ desired: 'running', revision: workspace.revision + 1, updatedAt: at })
        .where(eq(workspaces.id, workspaceId));
      await appendLog(tx, build.id, [serverLine(at, 'queued', 'cancelled: the workspace is in use', 'warn')]);
      await enqueueReconcile(tx, workspaceId);
    });
    bus.publish({ workspaceId });
  }

  return {
    requestStop,
    cancelIdleStop,

    /** Resolves with the stop that the agent has to prepare for, or with null after `waitMs` or once `signal` is aborted. */
    async waitFor(actor: AgentActor, waitMs: number, signal: AbortSignal): Promise<ShutdownRequest | null> {
      const timeout = AbortSignal.any([signal, AbortSignal.timeout(waitMs)]);
      for (;;) {
        const change = nextChange(bus, actor.workspaceId, timeout);
        const found = await find(actor);
        if (found || timeout.aborted) return found;
        await change;
        if (timeout.aborted) return find(actor);
      }
    },

    async answer(actor: AgentActor, answer: ShutdownAnswer): Promise<void> {
      const outcome = await db.transaction((tx) => reports.answer(tx, actor, answer));
      if (outcome === null) return answer.state === 'ready' ? answerBuild(actor, answer) : undefined;
      if (outcome.kind === 'stop')
        await requestStop({
          workspaceId: actor.workspaceId,
          cause: outcome.cause,
          reason: outcome.reason,
          isIdleStop: true,
          lines: scriptLines(now(), answer),
        });
      else if (outcome.kind === 'cancel') await cancelIdleStop(actor.workspaceId);
    },
  };
}

export type Shutdowns = ReturnType<typeof makeShutdowns>;

/** How the shutdown script ended, if that is worth a line. */
function scriptLines(at: Date, { exitCode = null, timedOut = false }: ShutdownAnswer): NewLine[] {
  if (timedOut)
    return [serverLine(at, 'provision', 'the shutdown script took too long and was ended', 'warn')];
  if (exitCode === null || exitCode === 0) return [];
  return [serverLine(at, 'provision', `the shutdown script ended with exit code ${exitCode}`, 'warn')];
}

/** Resolves at the next change of the workspace, or once `signal` is aborted. */
function nextChange(bus: Bus, workspaceId: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      unsubscribe();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const unsubscribe = bus.subscribe((change) => {
      if (change.workspaceId === workspaceId) end();
    }, end);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
  });
}
