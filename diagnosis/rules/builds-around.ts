import { type BuildEvent, type Evidence, overlaps } from '../evidence.ts';
import { type Spell, spanOfSpell } from '../spells.ts';

/** A connection is lost a moment before or after the build that causes it is recorded. */
const beforeMs = 15_000;
const afterMs = 30_000;

/** The session continued with the same agent: what happened to that later has nothing to do with the spell. */
export const hasContinued = ({ kind, to }: Spell): boolean => kind !== 'ended' && to !== null;

/** Builds that ran when the spell began, newest first. */
export function buildsAround(spell: Spell, { builds, session }: Evidence): BuildEvent[] {
  const { from, to } = spanOfSpell(spell, session);
  return builds
    .filter(({ requestedAt }) => !hasContinued(spell) || requestedAt <= to)
    .filter((build) =>
      overlaps(
        { from: build.requestedAt - beforeMs, to: (build.finishedAt ?? Infinity) + afterMs },
        { from, to: Math.max(from, Math.min(to, from + 60_000)) },
      ),
    )
    .sort((one, other) => other.requestedAt - one.requestedAt);
}

/** Why the compute of the workspace ended by itself around the spell. */
export const endAround = (spell: Spell, evidence: Evidence): string | null =>
  buildsAround(spell, evidence).find(({ endCause }) => endCause !== null)?.endCause ?? null;
