// Shared by the `cde` command of the agent and the CLI, which start without zod.

/** Long enough to survive a server that is unreachable for some minutes, short enough to end soon after a machine that died. */
const leaseSeconds = 30 * 60;
/** Used if the installation does not allow longer ones. */
const shorterSeconds = [10 * 60, 60];
/** How soon a renewal that failed is tried again. */
const retryMs = 60_000;
const minRenewMs = 500;

export interface HeldLease {
  id: string;
  createdAt: string;
  expiresAt: string;
}

export interface LeaseClient<Lease extends HeldLease = HeldLease> {
  /** `renews`: the one to extend. A server of an earlier release grants another one. An error has the API's `code`. */
  create(seconds: number, renews?: string): Promise<Lease>;
  end(id: string): Promise<void>;
}

export interface HoldOptions {
  maxSeconds: number | undefined;
  /** The workspace may stop: the lease was not granted or renewed. Reported once until that succeeds. */
  onProblem: (error: unknown) => void;
  /** Continues without a lease if the first one is refused, and asks again after a minute. */
  startsWithout?: boolean;
}

/**
 * Keeps a workspace awake until `release`, for at most `maxSeconds`, by short leases: one is renewed when a third of it
 * has passed, so that two renewals can fail. Rejects if the first one is refused, unless it `startsWithout`.
 */
export async function holdAwake(
  leases: LeaseClient,
  { maxSeconds, onProblem, startsWithout = false }: HoldOptions,
): Promise<{ release(): Promise<void> }> {
  // Never the time of day: the clocks of this machine and the server can differ, and be set meanwhile.
  const until = maxSeconds === undefined ? Number.POSITIVE_INFINITY : performance.now() + maxSeconds * 1000;
  const secondsLeft = () => Math.min(leaseSeconds, Math.ceil((until - performance.now()) / 1000));
  const create = async (seconds: number, renews?: string) => {
    for (const shorter of shorterSeconds) {
      try {
        return await leases.create(seconds, renews);
      } catch (error) {
        if ((error as { code?: unknown }).code !== 'lease-too-long' || seconds <= shorter) throw error;
        seconds = shorter;
      }
    }
    return leases.create(seconds, renews);
  };
  let held: HeldLease | undefined;
  let released = false;
  let timer: NodeJS.Timeout | undefined;
  let renewing = Promise.resolve();
  let hasWarned = false;

  const plan = (ms: number) => {
    timer = setTimeout(() => {
      renewing = renew();
    }, ms);
  };
  const planNext = ({ createdAt, expiresAt }: HeldLease) => {
    const grantedMs = Date.parse(expiresAt) - Date.parse(createdAt);
    if (performance.now() + grantedMs < until - minRenewMs) plan(Math.max(minRenewMs, grantedMs / 3));
  };
  const obtain = async (seconds: number) => {
    const before = held;
    held = await create(seconds, before?.id);
    hasWarned = false;
    // It expires by itself if this fails.
    if (before && held.id !== before.id) await leases.end(before.id).catch(() => {});
    if (!released) planNext(held);
  };
  const renew = async () => {
    const seconds = secondsLeft();
    if (released || seconds <= 0) return;
    try {
      await obtain(seconds);
    } catch (error) {
      if (!hasWarned) onProblem(error);
      hasWarned = true;
      if (!released) plan(retryMs);
    }
  };
  await (startsWithout ? renew() : obtain(secondsLeft()));
  return {
    async release() {
      released = true;
      clearTimeout(timer);
      // Otherwise the lease that is about to be granted would stay.
      await renewing;
      if (held) await leases.end(held.id);
    },
  };
}
