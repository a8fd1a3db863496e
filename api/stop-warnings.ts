import type { CleanupCause, StopCause } from './activity.ts';

/** How long before a stop people are warned, at most. */
export const longestWarningMs = 15 * 60_000;
const warnBeforeMs = [longestWarningMs, 5 * 60_000];

/** Whether activity or a keep-awake postpones a stop: not that of a maximum run time, nor one that was asked for. */
export const isPostponable = (cause: CleanupCause | null): boolean =>
  cause !== 'max-run' && cause !== 'request';

/**
 * How long before a stop people are warned. In a workspace that stops after ten minutes without activity, each key
 * would be followed by a warning of fifteen, so only warnings that are shorter than the idle period are given.
 */
export function warningsOf(cause: StopCause | null, idlePeriodMs: number | null): number[] {
  if (cause !== 'idle' || idlePeriodMs === null) return warnBeforeMs;
  return warnBeforeMs.filter((ms) => ms < idlePeriodMs);
}
