/** A change of one of our values by another program. Repairs that follow each other closely belong to the same drift. */
export interface Drift {
  /** When it was noticed first. */
  at: string;
  sysctl: string;
  /** The value that the other program had set. */
  from: string;
  /** The value that noded set again. */
  to: string;
  /** The file or program that sets it, if known. */
  by?: string;
}

/** Remembers repairs, and recognizes that another program undoes them. */
export interface Contention {
  /** Whether to repair the value now: at once, unless it is contested. */
  mayRepair(sysctl: string): boolean;
  repaired(repair: { sysctl: string; from: string; to: string }): void;
  /** Why a value is not reliable although it may be right at this moment; null: it is not contested. */
  describe(sysctl: string): string | null;
  /** The last drift of the sysctl. */
  drift(sysctl: string): Drift | undefined;
  /** Forgets all other sysctls: those of interfaces come and go with the pods of the node. */
  retain(sysctls: { has(sysctl: string): boolean }): void;
  /** Takes over what an earlier process reported, so that a restart does not lose it. */
  recall(drifts: readonly Drift[]): void;
}

/** More repairs than this within a minute mean that another program sets the value whenever we do. */
const maxRepairs = 5;
const windowMs = 60_000;
const firstBackoffMs = 10_000;
const maxBackoffMs = 300_000;

interface Track {
  drift: Drift;
  /** Of the last minute. */
  repairs: number[];
  lastRepairAt: number;
  /** Set while the value is contested. */
  contest: { backoffMs: number; message: string } | null;
}

export function makeContention({
  findWriter = () => null,
  now = () => performance.now(),
  wallClock = () => new Date(),
}: {
  /** What sets the sysctl to this value. Called once per drift. */
  findWriter?: (sysctl: string, value: string) => string | null;
  /** Monotonic milliseconds. */
  now?: () => number;
  wallClock?: () => Date;
} = {}): Contention {
  const tracks = new Map<string, Track>();

  /** The contest, unless the value has stayed as it should be since the last repair. */
  function contestOf(track: Track | undefined): Track['contest'] {
    // A repair that is still due is not a value that stayed.
    if (track?.contest && now() - track.lastRepairAt >= track.contest.backoffMs + windowMs)
      track.contest = null;
    return track?.contest ?? null;
  }

  return {
    mayRepair(sysctl) {
      const track = tracks.get(sysctl);
      const contest = contestOf(track);
      return !contest || now() - track!.lastRepairAt >= contest.backoffMs;
    },
    repaired({ sysctl, from, to }) {
      const before = tracks.get(sysctl);
      const contest = contestOf(before);
      const isSame = before && (contest || now() - before.lastRepairAt < windowMs);
      const by = isSame ? before.drift.by : (findWriter(sysctl, from) ?? undefined);
      const track: Track = {
        drift: isSame
          ? before.drift
          : { at: wallClock().toISOString(), sysctl, from, to, ...(by !== undefined && { by }) },
        repairs: [...(before?.repairs ?? []).filter((at) => now() - at < windowMs), now()],
        lastRepairAt: now(),
        contest,
      };
      if (contest) track.contest = { ...contest, backoffMs: Math.min(contest.backoffMs * 2, maxBackoffMs) };
      else if (track.repairs.length > maxRepairs)
        track.contest = {
          backoffMs: firstBackoffMs,
          message:
            `Something sets ${sysctl} to ${from} whenever noded sets it to ${to}${by === undefined ? '' : `: ${by}`}. ` +
            'noded repeats its change less and less often, at least every 5 minutes. Remove the other setting, or the one in the profile.',
        };
      tracks.set(sysctl, track);
    },
    describe: (sysctl) => contestOf(tracks.get(sysctl))?.message ?? null,
    drift: (sysctl) => tracks.get(sysctl)?.drift,
    retain(sysctls) {
      for (const sysctl of tracks.keys()) if (!sysctls.has(sysctl)) tracks.delete(sysctl);
    },
    recall(drifts) {
      for (const drift of drifts)
        if (!tracks.has(drift.sysctl))
          tracks.set(drift.sysctl, {
            drift,
            repairs: [],
            lastRepairAt: Number.NEGATIVE_INFINITY,
            contest: null,
          });
    },
  };
}
