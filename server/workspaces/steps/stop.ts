import type { Provider } from '../../providers/provider.ts';
import { advanceStages, currentStage } from '../statuses.ts';
import { dormantRequest } from '../unused/dormant-request.ts';
import type { StepDeps } from './deps.ts';
import { fail } from './fail.ts';
import { collectLines, serverLine } from './log-lines.ts';
import { makeDormant } from './make-dormant.ts';
import { type BuildSnapshot, noAgent, type Outcome } from './outcome.ts';
import { pending } from './pending.ts';
import { prepareStop } from './prepare-stop.ts';

/** Takes the compute down and keeps the home: a stop, or the end of a cancelled start. */
export async function stop(
  deps: Pick<StepDeps, 'now' | 'shutdownScript'>,
  snapshot: BuildSnapshot,
  provider: Provider,
  options: { isCancel: boolean },
): Promise<Outcome> {
  const { workspace, build } = snapshot;
  if (!options.isCancel) {
    const preparing = await prepareStop(deps, snapshot);
    if (preparing) return preparing;
  }
  const { now } = deps;
  if (build.options.makesDormant) return makeDormant(now, snapshot, provider);
  const stage = currentStage(build);
  const { context, lines } = collectLines(now, stage ?? 'provision');
  const result = await provider.stop(workspace.id, workspace.providerState, context);
  if (result.kind === 'failed')
    return fail(now(), snapshot, result.error, lines, { providerState: result.state });
  if (result.kind === 'pending') return pending(result, lines);
  const at = now();
  return {
    workspace: {
      providerState: result.state,
      status: 'stopped',
      reason: reasonOf(build),
      isolation: null,
      ...noAgent,
    },
    build: options.isCancel
      ? { status: 'cancelled', finishedAt: at, stages: advanceStages(build.stages, null, at, 'cancelled') }
      : { status: 'succeeded', finishedAt: at, stages: advanceStages(build.stages, null, at) },
    lines: [
      ...lines,
      options.isCancel
        ? serverLine(at, stage ?? 'queued', 'cancelled', 'warn')
        : serverLine(at, 'provision', 'stopped; the home is kept'),
    ],
    ...(!options.isCancel &&
      build.options.stopCause === 'dormant' && {
        followUp: dormantRequest(workspace.id, build.reason.replace(/^stopped because/, 'dormant:')),
      }),
  };
}

/** Shown as long as it is stopped, if a policy did it: a person who did it knows why. */
function reasonOf({ options, reason }: BuildSnapshot['build']): string | null {
  return options.stopCause && reason ? `${reason[0]!.toUpperCase()}${reason.slice(1)}.` : null;
}
