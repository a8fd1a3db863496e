import type { Provider } from '../../providers/provider.ts';
import type { StepDeps } from './deps.ts';
import { fail } from './fail.ts';
import { type BuildSnapshot, noAgent, type Outcome, refOf } from './outcome.ts';

/** How often to check that the agent's compute still runs. Its end also wakes the workspace. */
export const pollMs = 5_000;

/** Fails a build whose compute has ended; null while it runs or is unknown. */
export async function failIfComputeEnded(
  now: () => Date,
  snapshot: BuildSnapshot,
  provider: Provider,
  when: string,
): Promise<Outcome | null> {
  const { workspace } = snapshot;
  const observed = await provider.observe(workspace.id, workspace.providerState);
  if (observed.kind === 'running' || observed.kind === 'unknown') return null;
  return fail(
    now(),
    snapshot,
    {
      code: 'agent-exited',
      message: `The agent exited ${when}.`,
      detail: observed.message,
      hint: 'Check the log above, then start the workspace again.',
      actions: [{ kind: 'start-workspace', workspace: refOf(snapshot) }],
      fault: 'system',
    },
    [],
    noAgent,
  );
}

/** How long the agent could report the end of the build's current stage: since its start, or that of this server if later. */
export function reportableMs(
  { now, startedAt }: Pick<StepDeps, 'now' | 'startedAt'>,
  { build }: BuildSnapshot,
): number {
  const stage = build.stages.at(-1);
  return stage ? now().getTime() - Math.max(Date.parse(stage.startedAt), startedAt.getTime()) : 0;
}
