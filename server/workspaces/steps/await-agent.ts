import type { Provider } from '../../providers/provider.ts';
import { advanceStages } from '../statuses.ts';
import { failIfComputeEnded, pollMs, reportableMs } from './compute-end.ts';
import type { StepDeps } from './deps.ts';
import { fail } from './fail.ts';
import { serverLine } from './log-lines.ts';
import type { BuildSnapshot, Outcome } from './outcome.ts';

/** An agent that runs but has not registered by then is kept from reaching the server. */
const agentTimeoutMs = 120_000;

/** Waits for the build's agent to register. */
export async function awaitAgent(
  deps: Pick<StepDeps, 'now' | 'startedAt' | 'agentUrl'>,
  snapshot: BuildSnapshot,
  provider: Provider,
): Promise<Outcome> {
  const { now, agentUrl } = deps;
  const { workspace, build } = snapshot;
  if (workspace.agentTlsKey !== null && workspace.agentBuildId === build.id) {
    const at = now();
    return {
      build: { stages: advanceStages(build.stages, 'startup', at) },
      lines: [serverLine(at, 'agent', 'agent connected')],
      requeue: 'now',
    };
  }
  const ended = await failIfComputeEnded(now, snapshot, provider, 'before it had connected');
  if (ended) return ended;
  if (reportableMs(deps, snapshot) > agentTimeoutMs)
    return fail(now(), snapshot, {
      code: 'agent-timeout',
      message: 'The agent started but did not reach the server within 2 minutes.',
      detail: `It was started with the server URL ${await agentUrl()}.`,
      hint: 'Check CDE_ACCESS_URL and the network between the workspace and the server, then start the workspace again.',
      fault: 'system',
    });
  return { requeue: pollMs };
}
