import type { BuildError, BuildStage, Stage } from '@cde/api/workspaces.ts';
import { eq } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { templateVersions, workspaces } from '../database/schema.ts';
import { hashSecret } from '../identity/secrets.ts';
import type {
  Provider,
  ProviderError,
  StepContext,
  StepResult,
  WorkspaceSpec,
} from '../providers/provider.ts';
import { parseDuration } from '../providers/quantity.ts';
import { renderTemplate } from '../templates/render.ts';
import type { NewLine } from './build-log.ts';
import { noAgent, type Outcome, type Snapshot } from './outcome.ts';
import { makeRecovery } from './recovery.ts';
import { advanceStages, currentStage, type Step, transitionStates } from './statuses.ts';
import type { BuildRow, WorkspaceRow } from './store.ts';

export interface StepDeps {
  database: Database;
  now: () => Date;
  /**
   * The agent token of a build: always the same for the same build, so that a repeated step does not cut off
   * the agent that its first run started.
   */
  agentToken: (buildId: string) => string;
  /** The URLs that agents reach the server by, comma separated, best first. */
  agentUrl: () => Promise<string>;
  /** How long the home of a deleted workspace is kept. */
  homeGraceMs: number;
}

/** An agent that has not registered by then will not: its process runs, so something is between it and the server. */
const agentTimeoutMs = 120_000;
/** While waiting for the agent, how often to look whether its process still lives (its exit wakes us anyway). */
const lookAgainMs = 5_000;
/** Beyond the script's own timeout, which the agent keeps: how long until the agent itself counts as silent. */
const startupGraceMs = 60_000;
/** The steps themselves, each one move: none writes anything, so each may be run twice. */
export function makeSteps({ database, now, agentToken, agentUrl, homeGraceMs }: StepDeps) {
  const recover = makeRecovery({ database, now });

  /** The provider was turned off: what it made cannot be reached, and that must be said. */
  function withoutProvider(action: Step, snapshot: Snapshot): Outcome | null {
    if (action === 'observe') return null;
    return fail(snapshot, {
      code: 'provider-not-available',
      message: `The provider ${snapshot.workspace.provider} is not available on this server any more.`,
      hint: 'An administrator can turn it on again; the home is untouched.',
      fault: 'system',
    });
  }

  async function perform(
    action: Step,
    snapshot: Snapshot,
    provider: Provider | undefined,
  ): Promise<Outcome | null> {
    if (!provider) return withoutProvider(action, snapshot);
    switch (action) {
      case 'nothing':
        return null;
      case 'observe':
        return recover(snapshot, provider);
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
        status: transitionStates[transition].during,
        reason: null,
        ...(transition === 'update' && {
          templateVersionId: build!.templateVersionId,
          parameters: build!.parameters,
        }),
        ...(build!.initiator !== 'system' && { recoveries: 0 }),
      },
      build: { status: 'running', startedAt: now(), stages: advanceStages(build!.stages, next, now()) },
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
        hint: 'Change the parameters, or ask a template admin to fix the template. Then update the workspace.',
        actions: [{ kind: 'update-workspace', workspace: refOf(snapshot) }],
        fault: 'user',
      });
    return {
      workspace: { agentBuildId: build.id, agentTlsKey: null, agentSeenAt: null, agentStats: null },
      build: {
        rendered: result.ok,
        agentTokenHash: hashSecret(agentToken(build.id)),
        stages: advanceStages(build.stages, 'provision', now()),
      },
      lines: [line('render', 'server', `template version ${version!.number} rendered`)],
      again: 'now',
    };
  }

  async function provision(snapshot: Snapshot, provider: Provider): Promise<Outcome> {
    const { workspace, owner } = snapshot;
    const build = snapshot.build!;
    const { context, lines } = collector('provision');
    const restore = await restoring(workspace);
    const move = await provider.start(
      {
        workspaceId: workspace.id,
        owner: owner.username,
        name: workspace.name,
        template: build.rendered!,
        ...(restore && { restore }),
      },
      { buildId: build.id, serverUrl: await agentUrl(), token: agentToken(build.id) },
      workspace.providerState,
      context,
    );
    if (move.kind === 'failed') return fail(snapshot, move.error, lines, { providerState: move.state });
    if (move.kind === 'pending')
      return { workspace: { ...waiting(move), ...move.location }, lines, again: move.retryAfterMs };
    return {
      workspace: {
        providerState: move.state,
        reason: null,
        isolation: move.isolation ?? null,
        restoreFrom: null,
        ...move.location,
      },
      build: { stages: advanceStages(build.stages, 'agent', now()) },
      lines,
      again: 'now',
    };
  }

  /** Lists and the dashboard say what the build log says: why it is not done yet. */
  function waiting(move: Extract<StepResult, { kind: 'pending' }>): Partial<WorkspaceRow> {
    return { providerState: move.state, reason: move.message ?? null };
  }

  /** What the provider needs to give this workspace the home that a deleted one left. */
  async function restoring({ restoreFrom }: WorkspaceRow): Promise<WorkspaceSpec['restore']> {
    if (!restoreFrom) return undefined;
    const [from] = await database.db
      .select({ state: workspaces.providerState })
      .from(workspaces)
      .where(eq(workspaces.id, restoreFrom));
    return from && { workspaceId: restoreFrom, state: from.state };
  }

  async function awaitAgent(snapshot: Snapshot, provider: Provider): Promise<Outcome> {
    const { workspace } = snapshot;
    const build = snapshot.build!;
    if (workspace.agentTlsKey !== null && workspace.agentBuildId === build.id)
      return {
        build: { stages: advanceStages(build.stages, 'startup', now()) },
        lines: [line('agent', 'server', 'agent connected')],
        again: 'now',
      };
    const gone = await lost(snapshot, provider, 'before it had connected');
    if (gone) return gone;
    if (sinceStage(build) > agentTimeoutMs)
      return fail(snapshot, {
        code: 'agent-timeout',
        message: 'The agent started but did not reach the server within 2 minutes.',
        detail: `It was told to use ${await agentUrl()}.`,
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
              hint: 'You can open a terminal in the workspace to investigate. Fix the script or raise startup.timeout, then start it again.',
              actions: afterStartup(snapshot),
              fault: 'user',
            }
          : {
              code: 'startup-failed',
              message: report.signal
                ? `The startup script was ended by ${report.signal} after ${seconds} s.`
                : `The startup script failed with exit code ${report.exitCode} after ${seconds} s.`,
              hint: 'Its output is in the log above. You can open a terminal in the workspace to investigate, then start it again.',
              actions: afterStartup(snapshot),
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
    return { build: { stages: advanceStages(build.stages, 'ready', now()) }, lines, again: 'now' };
  }

  function finish({ build }: Snapshot): Outcome {
    const took = ((now().getTime() - build!.createdAt.getTime()) / 1000).toFixed(1);
    return {
      workspace: { status: 'running', reason: null },
      build: { status: 'succeeded', finishedAt: now(), stages: advanceStages(build!.stages, null, now()) },
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
    if (move.kind === 'pending') return { workspace: waiting(move), lines, again: move.retryAfterMs };
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
        build: { status: 'succeeded', finishedAt: now(), stages: advanceStages(build.stages, null, now()) },
        lines: [...lines, line('provision', 'server', 'stopped; the home stays')],
      };
    return {
      workspace: { ...state, ...(workspace.status === 'pending' && { status: 'stopped' as const }) },
      build: {
        status: 'cancelled',
        finishedAt: now(),
        stages: advanceStages(build.stages, null, now(), 'cancelled'),
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
    if (move.kind === 'pending') return { workspace: waiting(move), lines, again: move.retryAfterMs };
    const keptUntil = new Date(now().getTime() + homeGraceMs);
    return {
      workspace: {
        providerState: move.state,
        status: 'deleted',
        reason: null,
        deletedAt: now(),
        homeKeptUntil: move.homeRetained ? keptUntil : null,
        restoreFrom: null,
        ...noAgent,
      },
      ...(workspace.restoreFrom && { giveBack: { workspaceId: workspace.restoreFrom, until: keptUntil } }),
      build: { status: 'succeeded', finishedAt: now(), stages: advanceStages(build.stages, null, now()) },
      lines: [...lines, line('provision', 'server', 'deleted')],
    };
  }

  /** The Outcome when the compute of a build under way has ended, else null. */
  async function lost(snapshot: Snapshot, provider: Provider, when: string): Promise<Outcome | null> {
    const { workspace } = snapshot;
    const seen = await provider.observe(workspace.id, workspace.providerState);
    if (seen.kind === 'running' || seen.kind === 'unknown') return null;
    return fail(
      snapshot,
      {
        code: 'agent-exited',
        message: `The agent ended ${when}.`,
        detail: seen.message,
        hint: 'See the log above, then start it again.',
        actions: [{ kind: 'start-workspace', workspace: refOf(snapshot) }],
        fault: 'system',
      },
      [],
      noAgent,
    );
  }

  const refOf = ({ workspace, owner }: Snapshot) => `${owner.username}/${workspace.name}`;

  const afterStartup = (snapshot: Snapshot) => [
    { kind: 'open-terminal' as const, workspace: refOf(snapshot) },
    { kind: 'start-workspace' as const, workspace: refOf(snapshot) },
  ];

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
        stages: advanceStages(build.stages, null, now(), 'failed'),
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

  function collector(stage: Stage): { context: StepContext; lines: NewLine[] } {
    const lines: NewLine[] = [];
    return {
      lines,
      context: { log: (text, level = 'info') => lines.push(line(stage, 'provider', text, level)) },
    };
  }

  return { perform, fail };
}
