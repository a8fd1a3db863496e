import type { ProviderState, Removed, StepResult } from '../provider.ts';

interface RemovableHomes<Hint> {
  giveBack(from: string, to: string, now: Date, hint?: Hint): Promise<void>;
  retain(workspaceId: string, now: Date, hint?: Hint): Promise<boolean>;
  discard(workspaceId: string, hint?: Hint): Promise<boolean>;
}

/** The last step of a removal, once there is no compute: the home is retained, deleted, or given back. */
export async function removeHome<Hint>({
  homes,
  workspaceId,
  state,
  stopped,
  home,
  now,
  retryMs,
}: {
  homes: RemovableHomes<Hint>;
  workspaceId: string;
  state: { home?: Hint; restoring?: string };
  /** What is remembered of a workspace without compute. */
  stopped: ProviderState;
  home: 'keep' | 'discard';
  now: Date;
  retryMs: number;
}): Promise<StepResult<Removed>> {
  if (state.restoring !== undefined) {
    await homes.giveBack(state.restoring, workspaceId, now, state.home);
    return { kind: 'done', state: {}, homeRetained: false };
  }
  if (home === 'keep')
    return { kind: 'done', state: stopped, homeRetained: await homes.retain(workspaceId, now, state.home) };
  if (await homes.discard(workspaceId, state.home)) return { kind: 'done', state: {}, homeRetained: false };
  return {
    kind: 'pending',
    state: stopped,
    retryAfterMs: retryMs,
    message: 'The home cannot be deleted yet: another instance uses its volume.',
  };
}
