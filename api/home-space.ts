import { bytes } from './sizes.ts';

// Without zod: the CLI and the agent load this at once.

/**
 * How full the disk of a home is when its developer is warned, in percent: once with time to make room, and once shortly
 * before programs fail.
 */
export const homeWarnPercents = [90, 97];

export interface HomeSpace {
  /** Null if it is not known, as with agents of earlier releases. */
  homeFullPercent: number | null;
  homeFreeBytes: number | null;
}

/** `92 % full, 812.0 MiB left`; null if nobody needs to be warned. */
export function homeSpaceWarning({ homeFullPercent, homeFreeBytes }: HomeSpace): string | null {
  if (homeFullPercent === null || homeFreeBytes === null || homeFullPercent < homeWarnPercents[0]!)
    return null;
  return `${Math.floor(homeFullPercent)} % full, ${bytes(homeFreeBytes)} left`;
}
