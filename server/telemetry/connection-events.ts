import { connectionEvents, satelliteWindows } from '../database/diagnosis-schema.ts';
import type { Queryable } from '../database/pool.ts';

/** Records what happens to agents and satellites, by which lost connections are explained. */
export async function recordConnectionEvent(
  tx: Queryable,
  event: Omit<typeof connectionEvents.$inferInsert, 'id'>,
): Promise<void> {
  await tx.insert(connectionEvents).values(event);
}

/** Records how late a satellite handled what arrived in the last `ms`. */
export async function recordSatelliteWindow(
  tx: Queryable,
  { satellite, now, ms, loopDelayMs }: { satellite: string; now: Date; ms: number; loopDelayMs: number },
): Promise<void> {
  await tx
    .insert(satelliteWindows)
    .values({ satellite, at: new Date(now.getTime() - ms), ms, loopDelayMs: Math.min(loopDelayMs, 1e9) });
}
