import type { StepResult } from '../../providers/provider.ts';
import type { NewLine } from '../builds/build-log.ts';
import type { Outcome } from './outcome.ts';

/** Shows what the provider waits for as the workspace's reason, and asks it again later. */
export function pending(result: Extract<StepResult, { kind: 'pending' }>, lines: NewLine[]): Outcome {
  return {
    workspace: { providerState: result.state, reason: result.message ?? null, ...result.location },
    lines,
    requeue: result.retryAfterMs,
  };
}
