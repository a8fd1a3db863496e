import type { StartupReport } from '../../database/schema.ts';
import type { Provider, ProviderError } from '../../providers/provider.ts';
import { parseDuration } from '../../providers/quantity.ts';
import type { NewLine } from '../builds/build-log.ts';
import { advanceStages } from '../statuses.ts';
import type { BuildRow } from '../store.ts';
import { failIfComputeEnded, pollMs, reportableMs } from './compute-end.ts';
import type { StepDeps } from './deps.ts';
import { fail } from './fail.ts';
import { serverLine } from './log-lines.ts';
import { type BuildSnapshot, type Outcome, refOf } from './outcome.ts';

/** The agent enforces the script's timeout. This much later, the agent itself counts as silent. */
const graceMs = 60_000;

/** Waits for the agent to report how the startup script ended. */
export async function awaitStartup(
  deps: Pick<StepDeps, 'now' | 'startedAt'>,
  snapshot: BuildSnapshot,
  provider: Provider,
): Promise<Outcome> {
  const { now } = deps;
  const { build } = snapshot;
  const timeout = build.rendered?.startup?.timeout;
  const report = build.startup;
  if (report?.state === 'none') return ready(now(), build, []);
  if (report?.state === 'done') {
    const seconds = (report.durationMs / 1000).toFixed(1);
    if (report.exitCode === 0 && !report.timedOut)
      return ready(now(), build, [serverLine(now(), 'startup', `startup script done in ${seconds} s`)]);
    return fail(now(), snapshot, {
      ...startupError(report, timeout, seconds),
      actions: [
        { kind: 'open-terminal', workspace: refOf(snapshot) },
        { kind: 'start-workspace', workspace: refOf(snapshot) },
      ],
    });
  }
  const ended = await failIfComputeEnded(now, snapshot, provider, 'while the startup script ran');
  if (ended) return ended;
  if (reportableMs(deps, snapshot) > (parseDuration(timeout ?? '0s') ?? 0) + graceMs)
    return fail(now(), snapshot, {
      code: 'startup-silent',
      message: 'The agent never reported how the startup script ended.',
      hint: 'Start the workspace again.',
      fault: 'system',
    });
  return { requeue: pollMs };
}

function ready(at: Date, build: BuildRow, lines: NewLine[]): Outcome {
  return { build: { stages: advanceStages(build.stages, 'ready', at) }, lines, requeue: 'now' };
}

function startupError(
  report: Extract<StartupReport, { state: 'done' }>,
  timeout: string | undefined,
  seconds: string,
): ProviderError {
  if (report.timedOut)
    return {
      code: 'startup-timeout',
      message: `The startup script did not finish within ${timeout} and was stopped.`,
      hint: 'Open a terminal in the workspace to find out why. Fix the script or raise startup.timeout, then start the workspace again.',
      fault: 'user',
    };
  return {
    code: 'startup-failed',
    message: report.signal
      ? `The startup script was killed by ${report.signal} after ${seconds} s.`
      : `The startup script failed with exit code ${report.exitCode} after ${seconds} s.`,
    hint: 'Its output is in the log above. Open a terminal in the workspace to find out why, then start it again.',
    fault: 'user',
  };
}
