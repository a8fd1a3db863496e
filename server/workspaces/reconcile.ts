import type { BuildError, BuildStage, Stage } from '@cde/api/workspaces.ts';
import { and, eq } from 'drizzle-orm';
import { enqueueReconcile } from '../database/jobs.ts';
import { type Database, isUnavailable } from '../database/pool.ts';
import { builds, templateVersions, users, workspaces } from '../database/schema.ts';
import type { Bus } from '../events/bus.ts';
import { hashSecret } from '../identity/secrets.ts';
import type { Logger } from '../log.ts';
import type { MoveContext, Observation, Provider, ProviderError } from '../providers/provider.ts';
import { parseDuration } from '../templates/quantity.ts';
import { renderTemplate } from '../templates/render.ts';
import { appendLog, type NewLine } from './build-log.ts';
import { requestBuild } from './builds.ts';
import { type Action, advance, changes, currentStage, decide, outcomes } from './statuses.ts';
import { type BuildRow, openBuilds, type WorkspaceRow } from './store.ts';

export interface ReconcileDeps {
  database: Database;
  bus: Bus;
  log: Logger;
  now: () => Date;
  providers: Map<string, Provider>;
  /** The agent token of a build: always the same for the same build, so that a repeated step does not cut off the agent that its first run started. */
  agentToken: (buildId: string) => string;
  /** The URLs that agents reach the server by, comma separated, best first. */
  agentUrl: () => Promise<string>;
}

/** An agent that has not registered by then will not: its process runs, so something is between it and the server. */
const agentTimeoutMs = 120_000;
/** While waiting for the agent, how often to look whether its process still lives (its exit wakes us anyway). */
const lookAgainMs = 5_000;
/** Beyond the script's own timeout, which the agent keeps: how long until the agent itself counts as silent. */
const startupGraceMs = 60_000;
/** Compute that ends by itself is started again this often; an hour of running forgets them. */
const mostRecoveries = 3;
const forgetRecoveriesMs = 3600_000;
/** A step that keeps failing for a reason of ours gives its build up after this many attempts. */
const mostAttempts = 5;

interface Snapshot {
  workspace: WorkspaceRow;
  owner: { username: string; name: string; email: string | null };
  build: BuildRow | null;
}

interface Outcome {
  workspace?: Partial<WorkspaceRow>;
  build?: Partial<BuildRow>;
  lines?: NewLine[];
  /** Come back after so many ms; `now` at once; absent: when something wakes us. */
  again?: number | 'now';
}

/** Another replica has taken a step since this one read: what it found is out of date. */
class Stale extends Error {}

async function load(database: Database, workspaceId: string): Promise<Snapshot | null> {
  const [found] = await database.db
    .select({
      workspace: workspaces,
      owner: { username: users.username, name: users.name, email: users.email },
    })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .where(eq(workspaces.id, workspaceId));
  if (!found) return null;
  const open = await openBuilds(database.db, workspaceId);
  return { ...found, build: open[0] ?? null };
}

/**
 * Takes steps for one workspace until there is nothing to do but wait. Each step compares what is wanted
 * with what is, asks the provider for one move, and records it; it may be killed anywhere and run again.
 */
export function makeReconcile(deps: ReconcileDeps): (workspaceId: string, attempt: number) => Promise<void> {
  const { database, bus, log, now } = deps;

  async function commit({ workspace, build }: Snapshot, outcome: Outcome): Promise<void> {
    const to = outcome.workspace?.status;
    if (to !== undefined && to !== workspace.status && !changes[workspace.status].includes(to))
      throw new Error(`a workspace cannot go from ${workspace.status} to ${to}`);
    await database.db.transaction(async (tx) => {
      const rows = await tx
        .update(workspaces)
        .set({ ...outcome.workspace, revision: workspace.revision + 1, updatedAt: now() })
        .where(and(eq(workspaces.id, workspace.id), eq(workspaces.revision, workspace.revision)))
        .returning({ id: workspaces.id });
      if (rows.length === 0) throw new Stale();
      if (build && outcome.build) await tx.update(builds).set(outcome.build).where(eq(builds.id, build.id));
      if (build && outcome.lines) await appendLog(tx, build.id, outcome.lines);
      if (typeof outcome.again === 'number') await enqueueReconcile(tx, workspace.id, outcome.again);
      // A build has ended: the next one may be waiting behind it.
      else if (outcome.build?.finishedAt) await enqueueReconcile(tx, workspace.id);
    });
    if (outcome.workspace?.status || outcome.build || (outcome.lines?.length ?? 0) > 0)
      bus.publish({ workspaceId: workspace.id, ...(build && { buildId: build.id }) });
  }

  return async function reconcile(workspaceId, attempt) {
    // A start passes about six steps; more than this many without waiting would be a loop.
    for (let step = 0; step < 20; step++) {
      const snapshot = await load(database, workspaceId);
      if (!snapshot || snapshot.workspace.status === 'deleted') return;
      const provider = deps.providers.get(snapshot.workspace.provider);
      const action = decide(view(snapshot));
      if (action === 'nothing') return;
      try {
        const outcome = provider
          ? await perform(action, snapshot, provider)
          : withoutProvider(action, snapshot);
        if (outcome === null) return;
        await commit(snapshot, outcome);
        if (outcome.again !== 'now') return;
      } catch (error) {
        if (error instanceof Stale) return enqueueReconcile(database.db, workspaceId);
        if (isUnavailable(error)) throw error;
        log.error({ err: error, workspace: workspaceId, action }, 'a reconcile step failed');
        if (attempt < mostAttempts || !snapshot.build) throw error;
        await commit(
          snapshot,
          fail(snapshot, {
            code: 'internal',
            message: 'Something went wrong on the server.',
            detail: (error as Error).message,
            hint: 'Start it again; if it stays, tell your administrator.',
            fault: 'system',
          }),
        );
        return;
      }
    }
    await enqueueReconcile(database.db, workspaceId, 1_000);
  };

  function view({ workspace, build }: Snapshot) {
    return { desired: workspace.desired, status: workspace.status, build };
  }

  /** The provider was turned off: what it made cannot be reached, and that must be said. */
  function withoutProvider(action: Action, snapshot: Snapshot): Outcome | null {
    if (action === 'observe') return null;
    return fail(snapshot, {
      code: 'provider-not-available',
      message: `The provider ${snapshot.workspace.provider} is not available on this server any more.`,
      hint: 'An administrator can turn it on again; the home is untouched.',
      fault: 'system',
    });
  }

  async function perform(action: Action, snapshot: Snapshot, provider: Provider): Promise<Outcome | null> {
    switch (action) {
      case 'nothing':
        return null;
      case 'observe':
        return observe(snapshot, provider);
      case 'begin':
        return begin(snapshot);
      case 'render':
        return render(snapshot);
      case 'provision':
        return provision(snapshot, provider);
      case 'await-agent':
        return awaitAgent(snapshot, provider);
      case 'await-startup':
        return awaitStartup(snapshot, provider);
      case 'finish':
        return finish(snapshot);
      case 'stop':
      case 'unwind':
        return takeDown(snapshot, provider, action);
      case 'remove':
        return remove(snapshot, provider);
    }
  }

  function begin({ workspace, build }: Snapshot): Outcome {
    const { transition } = build!;
    const next: Stage = transition === 'start' || transition === 'update' ? 'render' : 'provision';
    return {
      workspace: {
        status: outcomes[transition].during,
        reason: null,
        ...(transition === 'update' && {
          templateVersionId: build!.templateVersionId,
          parameters: build!.parameters,
        }),
        ...(build!.initiator !== 'system' && { recoveries: 0 }),
      },
      build: { status: 'running', startedAt: now(), stages: advance(build!.stages, next, now()) },
      lines: [
        line(
          next,
          'server',
          `${transition} of ${workspace.name}${build!.reason ? `: ${build!.reason}` : ''}`,
        ),
      ],
      again: 'now',
    };
  }

  async function render(snapshot: Snapshot): Promise<Outcome> {
    const { workspace, owner } = snapshot;
    const build = snapshot.build!;
    const [version] = await database.db
      .select()
      .from(templateVersions)
      .where(eq(templateVersions.id, build.templateVersionId));
    const result = renderTemplate(version!.content, build.parameters, {
      workspace: { id: workspace.id, name: workspace.name, owner: owner.username },
      owner: { name: owner.name, email: owner.email ?? '' },
    });
    if ('faults' in result)
      return fail(snapshot, {
        code: 'template-invalid',
        message: 'The template cannot be rendered with these parameters.',
        detail: result.faults.map((fault) => `${fault.path}: ${fault.message}`).join('; '),
        hint: 'Change the parameters, or have the template mended: cde update',
        fault: 'user',
      });
    return {
      workspace: { agentBuildId: build.id, agentTlsKey: null, agentSeenAt: null, agentStats: null },
      build: {
        rendered: result.ok,
        agentTokenHash: hashSecret(deps.agentToken(build.id)),
        stages: advance(build.stages, 'provision', now()),
      },
      lines: [line('render', 'server', `template version ${version!.number} rendered`)],
      again: 'now',
    };
  }

  async function provision(snapshot: Snapshot, provider: Provider): Promise<Outcome> {
    const { workspace, owner } = snapshot;
    const build = snapshot.build!;
    const { context, lines } = collector('provision');
    const move = await provider.start(
      { workspaceId: workspace.id, owner: owner.username, name: workspace.name, template: build.rendered! },
      { buildId: build.id, serverUrl: await deps.agentUrl(), token: deps.agentToken(build.id) },
      workspace.providerState,
      context,
    );
    if (move.kind === 'failed') return fail(snapshot, move.error, lines, { providerState: move.state });
    if (move.kind === 'again')
      return { workspace: { providerState: move.state }, lines, again: move.afterMs };
    return {
      workspace: { providerState: move.state, isolation: move.isolation ?? null },
      build: { stages: advance(build.stages, 'agent', now()) },
      lines,
      again: 'now',
    };
  }

  async function awaitAgent(snapshot: Snapshot, provider: Provider): Promise<Outcome> {
    const { workspace } = snapshot;
    const build = snapshot.build!;
    if (workspace.agentTlsKey !== null && workspace.agentBuildId === build.id)
      return {
        build: { stages: advance(build.stages, 'startup', now()) },
        lines: [line('agent', 'server', 'agent connected')],
        again: 'now',
      };
    const gone = await lost(snapshot, provider, 'before it had connected');
    if (gone) return gone;
    if (sinceStage(build) > agentTimeoutMs)
      return fail(snapshot, {
        code: 'agent-timeout',
        message: 'The agent started but did not reach the server within 2 minutes.',
        detail: `It was told to use ${await deps.agentUrl()}.`,
        hint: 'Check CDE_ACCESS_URL and what lies between the workspace and the server, then start it again.',
        fault: 'system',
      });
    return { again: lookAgainMs };
  }

  async function awaitStartup(snapshot: Snapshot, provider: Provider): Promise<Outcome> {
    const build = snapshot.build!;
    const report = build.startup;
    if (report?.state === 'none') return ready(build, []);
    if (report?.state === 'done') {
      const seconds = (report.durationMs / 1000).toFixed(1);
      if (report.exitCode === 0 && !report.timedOut)
        return ready(build, [line('startup', 'server', `startup script done in ${seconds} s`)]);
      const timeout = build.rendered?.startup?.timeout;
      return fail(
        snapshot,
        report.timedOut
          ? {
              code: 'startup-timeout',
              message: `The startup script did not end within ${timeout}, and was stopped.`,
              hint: 'The workspace can be entered to look: cde ssh. Then mend the script (or raise startup.timeout) and start it again.',
              fault: 'user',
            }
          : {
              code: 'startup-failed',
              message: report.signal
                ? `The startup script was ended by ${report.signal} after ${seconds} s.`
                : `The startup script failed with exit code ${report.exitCode} after ${seconds} s.`,
              hint: 'Its output is in the log above; the workspace can be entered to look: cde ssh. Then start it again.',
              fault: 'user',
            },
      );
    }
    const gone = await lost(snapshot, provider, 'while the startup script ran');
    if (gone) return gone;
    const limit = (parseDuration(build.rendered?.startup?.timeout ?? '0s') ?? 0) + startupGraceMs;
    if (sinceStage(build) > limit)
      return fail(snapshot, {
        code: 'startup-silent',
        message: 'The agent never said how the startup script ended.',
        hint: 'Start it again.',
        fault: 'system',
      });
    return { again: lookAgainMs };
  }

  function ready(build: BuildRow, lines: NewLine[]): Outcome {
    return { build: { stages: advance(build.stages, 'ready', now()) }, lines, again: 'now' };
  }

  function finish({ build }: Snapshot): Outcome {
    const took = ((now().getTime() - build!.createdAt.getTime()) / 1000).toFixed(1);
    return {
      workspace: { status: 'running', reason: null },
      build: { status: 'succeeded', finishedAt: now(), stages: advance(build!.stages, null, now()) },
      lines: [line('ready', 'server', `ready after ${took} s`)],
    };
  }

  async function takeDown(
    snapshot: Snapshot,
    provider: Provider,
    action: 'stop' | 'unwind',
  ): Promise<Outcome> {
    const build = snapshot.build!;
    const { workspace } = snapshot;
    const { context, lines } = collector(currentStage(build) ?? 'provision');
    const move = await provider.stop(workspace.id, workspace.providerState, context);
    if (move.kind === 'failed') return fail(snapshot, move.error, lines, { providerState: move.state });
    if (move.kind === 'again')
      return { workspace: { providerState: move.state }, lines, again: move.afterMs };
    const state = {
      providerState: move.state,
      status: 'stopped' as const,
      reason: null,
      isolation: null,
      ...noAgent,
    };
    if (action === 'stop')
      return {
        workspace: state,
        build: { status: 'succeeded', finishedAt: now(), stages: advance(build.stages, null, now()) },
        lines: [...lines, line('provision', 'server', 'stopped; the home stays')],
      };
    return {
      workspace: { ...state, ...(workspace.status === 'pending' && { status: 'stopped' as const }) },
      build: {
        status: 'cancelled',
        finishedAt: now(),
        stages: advance(build.stages, null, now(), 'cancelled'),
      },
      lines: [...lines, line(currentStage(build) ?? 'queued', 'server', 'cancelled', 'warn')],
    };
  }

  async function remove(snapshot: Snapshot, provider: Provider): Promise<Outcome> {
    const build = snapshot.build!;
    const { workspace } = snapshot;
    const { context, lines } = collector('provision');
    const move = await provider.remove(
      workspace.id,
      workspace.providerState,
      build.options.home ?? 'keep',
      context,
    );
    if (move.kind === 'failed') return fail(snapshot, move.error, lines, { providerState: move.state });
    if (move.kind === 'again')
      return { workspace: { providerState: move.state }, lines, again: move.afterMs };
    return {
      workspace: { providerState: move.state, status: 'deleted', reason: null, deletedAt: now(), ...noAgent },
      build: { status: 'succeeded', finishedAt: now(), stages: advance(build.stages, null, now()) },
      lines: [...lines, line('provision', 'server', 'deleted')],
    };
  }

  /** No build is under way and the workspace should run: if its compute is gone, start it again, a few times. */
  async function observe(snapshot: Snapshot, provider: Provider): Promise<Outcome | null> {
    const { workspace } = snapshot;
    const seen = await provider.observe(workspace.id, workspace.providerState);
    if (seen.kind === 'running') return null;
    const reason = endedBecause(seen);
    const calm = now().getTime() - workspace.updatedAt.getTime() > forgetRecoveriesMs;
    const recoveries = calm ? 1 : workspace.recoveries + 1;
    if (recoveries > mostRecoveries) {
      return {
        workspace: {
          status: 'failed',
          reason: `${reason}, ${mostRecoveries} times in a row; not started again.`,
          ...noAgent,
        },
      };
    }
    await commit(snapshot, { workspace: { recoveries, reason, ...noAgent } });
    await requestBuild(deps, 'system', {
      workspaceId: workspace.id,
      transition: 'start',
      restart: true,
      reason,
    });
    return null;
  }

  /** The Outcome when the compute of a build under way has ended, else null. */
  async function lost(snapshot: Snapshot, provider: Provider, when: string): Promise<Outcome | null> {
    const { workspace } = snapshot;
    const seen = await provider.observe(workspace.id, workspace.providerState);
    if (seen.kind === 'running') return null;
    return fail(
      snapshot,
      {
        code: 'agent-exited',
        message: `The agent ended ${when}.`,
        detail: endedBecause(seen),
        hint: 'See the log above, then start it again: cde start',
        fault: 'system',
      },
      [],
      noAgent,
    );
  }

  function fail(
    snapshot: Snapshot,
    error: ProviderError,
    lines: NewLine[] = [],
    workspace: Partial<WorkspaceRow> = {},
  ): Outcome {
    const build = snapshot.build!;
    const stage = currentStage(build) ?? 'queued';
    const recorded: BuildError = { ...error, stage };
    const text = [error.message, error.detail, error.hint].filter(Boolean).join(' ');
    return {
      workspace: { ...workspace, status: 'failed', reason: error.message },
      build: {
        status: 'failed',
        error: recorded,
        finishedAt: now(),
        stages: advance(build.stages, null, now(), 'failed'),
      },
      lines: [...lines, line(stage, 'server', text, 'error')],
    };
  }

  function sinceStage(build: BuildRow): number {
    const stage: BuildStage | undefined = build.stages.at(-1);
    return stage ? now().getTime() - Date.parse(stage.startedAt) : 0;
  }

  function line(
    stage: Stage,
    source: NewLine['source'],
    text: string,
    level: NewLine['level'] = 'info',
  ): NewLine {
    return { at: now(), stage, source, level, text };
  }

  function collector(stage: Stage): { context: MoveContext; lines: NewLine[] } {
    const lines: NewLine[] = [];
    return {
      lines,
      context: { log: (text, level = 'info') => lines.push(line(stage, 'provider', text, level)) },
    };
  }
}

const noAgent = { agentBuildId: null, agentTlsKey: null, agentSeenAt: null, agentStats: null };

function endedBecause(seen: Exclude<Observation, { kind: 'running' }>): string {
  return seen.kind === 'absent'
    ? 'Its processes are gone (the machine may have restarted)'
    : `The agent ended by itself: ${seen.reason}`;
}
