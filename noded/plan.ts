import type { Profile, SysctlTarget } from './profiles.ts';

/** The combined profiles of one node. */
export interface Plan {
  /** The target of each sysctl on which the profiles agree. */
  wanted: Map<string, SysctlTarget>;
  /** For each profile, what contradicts others. None of these is applied. */
  conflicts: Map<string, string>;
  /** Every sysctl that any profile names, including those in conflict: what must not be restored. */
  claimed: Set<string>;
}

/** Whether the profile applies to a node with these labels. */
export const appliesTo = (profile: Profile, labels: Readonly<Record<string, string>>): boolean =>
  Object.entries(profile.nodeSelector).every(([key, value]) => labels[key] === value);

const describe = (wanted: SysctlTarget) => ('exact' in wanted ? wanted.exact : `at least ${wanted.atLeast}`);
const wholeNumber = /^-?\d{1,20}$/;

/** Whether both targets can be met at once. */
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
 * Combines the profiles of one node. If two disagree about a sysctl, both are in conflict as a whole, because only the admin knows
 * which of them is meant. The result does not depend on their order.
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
              `${sysctl} should be ${describe(mine)}, but the profile ${other.name} wants ${describe(theirs)}`,
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
