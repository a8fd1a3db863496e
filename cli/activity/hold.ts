import type { Lease } from '@cde/api/activity.ts';
import { toFailure } from '../failure/failure.ts';

/** Long enough to survive a server that is unreachable for some minutes, short enough to end soon after a laptop that died. */
const leaseSeconds = 30 * 60;
/** How soon a renewal that failed is tried again. */
const retryMs = 60_000;
const minRenewMs = 500;

/** Used if the installation does not allow longer ones. */
const shorterSeconds = [10 * 60, 60];

export interface LeaseClient {
  /** `renews`: the one to extend. A server of an earlier release grants another one. */
  create(seconds: number, renews?: string): Promise<Lease>;
  end(id: string): Promise<void>;
}

/**
 * Keeps a workspace awake until `release`, for at most `maxSeconds`, by short leases: one is renewed when a third of it
 * has passed, so that two renewals can fail. Rejects if the first one is refused.
 */
export async function holdAwake(
  leases: LeaseClient,
  maxSeconds: number | undefined,
  onProblem: (text: string) => void,
): Promise<{ release(): Promise<void> }> {
  // Never the time of day: the clocks of this machine and the server can differ, and be set meanwhile.
  const until = maxSeconds === undefined ? Number.POSITIVE_INFINITY : performance.now() + maxSeconds * 1000;
  const secondsLeft = () => Math.min(leaseSeconds, Math.ceil((until - performance.now()) / 1000));
  const create = async (seconds: number, renews?: string) => {
    for (const shorter of shorterSeconds) {
      try {
        return await leases.create(seconds, renews);
      } catch (error) {
        if (toFailure(error).code !== 'lease-too-long' || seconds <= shorter) throw error;
        seconds = shorter;
      }
    }
    return leases.create(seconds, renews);
  };
  let held = await create(secondsLeft());
  let released = false;
  let timer: NodeJS.Timeout | undefined;
  let renewing = Promise.resolve();
  let hasWarned = false;

  const plan = (ms: number) => {
    timer = setTimeout(() => {
      renewing = renew();
    }, ms);
  };
  const planNext = () => {
    const grantedMs = Date.parse(held.expiresAt) - Date.parse(held.createdAt);
    if (performance.now() + grantedMs < until - minRenewMs) plan(Math.max(minRenewMs, grantedMs / 3));
  };
  const renew = async () => {
    const seconds = secondsLeft();
    if (released || seconds <= 0) return;
    try {
      const next = await create(seconds, held.id);
      const before = held;
      held = next;
      hasWarned = false;
      // It expires by itself if this fails.
      if (next.id !== before.id) await leases.end(before.id).catch(() => {});
      if (!released) planNext();
    } catch (error) {
      if (!hasWarned)
        onProblem(`The workspace may stop: keep-awake was not renewed (${toFailure(error).message})`);
      hasWarned = true;
      if (!released) plan(retryMs);
    }
  };
  planNext();
  return {
    async release() {
      released = true;
      clearTimeout(timer);
      await renewing;
      await leases.end(held.id);
    },
  };
}
