import { advanceStages, currentStage } from '../statuses.ts';
import type { StepDeps } from './deps.ts';
import { serverLine } from './log-lines.ts';
import type { BuildSnapshot, Outcome } from './outcome.ts';

/** An agent that has not reported for so long would not run the script. */
const agentSilentMs = 95_000;
/** How long the agent has to answer beyond the time of the script. */
const answerMs = 10_000;

/**
 * Before a stop, and before a restart or an update ends the compute that runs, the agent runs the shutdown script of its
 * template version. Null: there is nothing to wait for. The agent of an idle workspace has run it before the stop was
 * requested.
 */
export async function prepareStop(
  { now, shutdownScript }: Pick<StepDeps, 'now' | 'shutdownScript'>,
  { workspace, build }: BuildSnapshot,
): Promise<Outcome | null> {
  const { shutdown } = build;
  const { agentBuildId } = workspace;
  if (build.options.isIdleStop || shutdown?.state === 'ready' || agentBuildId === null) return null;
  const at = now();
  const seen = workspace.agentSeenAt?.getTime() ?? 0;
  if (at.getTime() - seen > agentSilentMs) return null;
  const script = await shutdownScript(agentBuildId);
  if (!script) return null;
  const stage = currentStage(build) ?? 'provision';
  if (!shutdown)
    return {
      build: {
        shutdown: { state: 'requested', at: at.getTime() },
        ...(currentStage(build) === null && { stages: advanceStages(build.stages, 'provision', at) }),
      },
      lines: [serverLine(at, stage, 'running the shutdown script')],
      requeue: script.timeoutMs + answerMs,
    };
  const leftMs = shutdown.at + script.timeoutMs + answerMs - at.getTime();
  if (leftMs > 0) return { requeue: leftMs };
  return {
    build: { shutdown: { state: 'ready', exitCode: null, timedOut: true } },
    lines: [serverLine(at, stage, 'the agent did not report the end of the shutdown script', 'warn')],
    requeue: 'now',
  };
}
