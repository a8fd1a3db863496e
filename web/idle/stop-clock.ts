import type { IdleState } from '@cde/api/activity.ts';
import { warningsOf } from '@cde/api/stop-warnings.ts';
import { useEffect, useState } from 'react';
import { useNow } from '../ui/time.tsx';

/** The minute before a stop is counted in seconds. */
export function useStopClock(stopsAt: string | null | undefined): number {
  const [soon, setSoon] = useState(false);
  const now = useNow(soon ? 1_000 : 10_000);
  const leftMs = stopsAt ? Date.parse(stopsAt) - now : Number.POSITIVE_INFINITY;
  useEffect(() => setSoon(leftMs < 120_000), [leftMs]);
  return now;
}

/** Whether people are warned of the stop now. */
export function stopsSoon(
  { stopsAt, cause, awakeBecause, held, waitsForReport }: IdleState,
  now: number,
): boolean {
  if (stopsAt === null || cause === null || held || waitsForReport) return false;
  // Idleness begins with the last activity, or when a keep-awake expires.
  const warnings = warningsOf(cause, Date.parse(stopsAt) - Date.parse(awakeBecause.at));
  return warnings.some((ms) => Date.parse(stopsAt) - now <= ms);
}
