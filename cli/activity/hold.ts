import type { Lease } from '@cde/api/activity.ts';
import { toFailure } from '../failure.ts';

/** Long enough to survive a server that is unreachable for some minutes, short enough to end soon after a laptop that died. */
const leaseSeconds = 30 * 60;
/** How soon a renewal that failed is tried again. */
const retryMs = 60_000;
const minRenewMs = 500;

/** Where the installation permits no longer ones. */
const shorterSeconds = [10 * 60, 60];

export interface LeaseDoor {
  create(seconds: number): Promise<Pick<Lease, 'id' | 'expiresAt'>>;
  end(id: string): Promise<void>;
}

/**
 * Keeps a workspace awake until `release`, for at most `maxSeconds`, by short leases: one is renewed when a third of it
 * has passed, so that two renewals can fail. Rejects if the first one is refused.
 */
export async function holdAwake(
  door: LeaseDoor,
  maxSeconds: number | undefined,
  onProblem: (text: string) => void,
): Promise<{ first: Pick<Lease, 'id' | 'expiresAt'>; release(): Promise<void> }> {
  const until = maxSeconds === undefined ? Number.POSITIVE_INFINITY : Date.now() + maxSeconds * 1000;
  const secondsLeft = () => Math.min(leaseSeconds, Math.ceil((until - Date.now()) / 1000));
  const create = async (seconds: number) => {
    for (const shorter of shorterSeconds) {
      try {
        return await door.create(seconds);
      } catch (error) {
        if (toFailure(error).code !== 'lease-too-long' || seconds <= shorter) throw error;
        seconds = shorter;
      }
    }
    return door.create(seconds);
  };
  const first = await create(secondsLeft());
  let held = first;
  let released = false;
  let timer: NodeJS.Timeout | undefined;
  let renewing = Promise.resolve();
  let told = false;

  const plan = (ms: number) => {
    timer = setTimeout(() => {
      renewing = renew();
    }, ms);
  };
  const planNext = () => {
    // The clocks of this machine and the server can differ; the length that was asked for bounds the error.
    const leftMs = Math.min(Date.parse(held.expiresAt) - Date.now(), leaseSeconds * 1000);
    if (Date.now() + leftMs < until - minRenewMs) plan(Math.max(minRenewMs, leftMs / 3));
  };
  const renew = async () => {
    const seconds = secondsLeft();
    if (released || seconds <= 0) return;
    try {
      const next = await create(seconds);
      const before = held;
      held = next;
      told = false;
      // It expires by itself if this fails.
      await door.end(before.id).catch(() => {});
      if (!released) planNext();
    } catch (error) {
      if (!told)
        onProblem(`The workspace may stop: keep-awake was not renewed (${toFailure(error).message})`);
      told = true;
      if (!released) plan(retryMs);
    }
  };
  planNext();
  return {
    first,
    async release() {
      released = true;
      clearTimeout(timer);
      await renewing;
      await door.end(held.id);
    },
  };
}
