import type { Profile, SysctlTarget } from './profiles.ts';

/** What the profiles of one node come to together. */
export interface Plan {
  /** What each sysctl is to be, of profiles that agree. */
  wanted: Map<string, SysctlTarget>;
  /** By profile: what it wants otherwise than others do. None of these is applied. */
  conflicts: Map<string, string>;
  /** Every sysctl that any profile names, those in conflict too: what stays as it is. */
  claimed: Set<string>;
}

/** Whether the profile is for a node with these labels. */
export const appliesTo = (profile: Profile, labels: Readonly<Record<string, string>>): boolean =>
  Object.entries(profile.nodeSelector).every(([key, value]) => labels[key] === value);

const describe = (wanted: SysctlTarget) => ('exact' in wanted ? wanted.exact : `at least ${wanted.atLeast}`);
const wholeNumber = /^-?\d{1,20}$/;

/** Whether both can be had at once. */
function agree(a: SysctlTarget, b: SysctlTarget): boolean {
  if ('exact' in a && 'exact' in b) return a.exact === b.exact;
  if ('atLeast' in a && 'atLeast' in b) return true;
  const [exact, least] =
    'exact' in a
      ? [a.exact, (b as { atLeast: bigint }).atLeast]
      : [(b as { exact: string }).exact, a.atLeast];
  return wholeNumber.test(exact) && BigInt(exact) >= least;
}

/**
 * Lays the profiles of one node over each other. Where two disagree about a sysctl, both are in conflict, whole:
 * which of them is meant, only the admin knows; the answer does not depend on which came first.
 */
export function makePlan(profiles: readonly Profile[]): Plan {
  const conflicts = new Map<string, string>();
  for (const profile of profiles) {
    const against = [...profile.sysctls].flatMap(([sysctl, mine]) =>
      profiles.flatMap((other) => {
        const theirs = other.sysctls.get(sysctl);
        return other === profile || !theirs || agree(mine, theirs)
          ? []
          : [
              `${sysctl} is to be ${describe(mine)} here and ${describe(theirs)} by the profile ${other.name}`,
            ];
      }),
    );
    if (against.length > 0) conflicts.set(profile.name, against.join('; '));
  }
  const wanted = new Map<string, SysctlTarget>();
  for (const profile of profiles) {
    if (conflicts.has(profile.name)) continue;
    for (const [sysctl, mine] of profile.sysctls) {
      const others = wanted.get(sysctl);
      if (!others || ('atLeast' in others && ('exact' in mine || mine.atLeast > others.atLeast)))
        wanted.set(sysctl, mine);
    }
  }
  return { wanted, conflicts, claimed: new Set(profiles.flatMap(({ sysctls }) => [...sysctls.keys()])) };
}
