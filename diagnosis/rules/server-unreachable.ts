import { cover, type Evidence, overlaps } from '../evidence.ts';
import { type Rule, span, sure } from '../rule.ts';
import { type Spell, spanOfSpell } from '../spells.ts';
import { satelliteReports } from './satellite-load.ts';

/** The satellite inside the server is named so, with a suffix on further replicas. */
export const isEmbedded = (spell: Spell, nameOf: (url: string) => string): boolean =>
  spell.path?.kind === 'relay' && /^embedded(-|$)/.test(nameOf(spell.path.via));

/** The server reports its load all the time. A longer pause of its own is no load. */
const frozenMs = 2_000;

/** True if the satellite of the path ran during the whole spell, by its own account. */
export const satelliteRan = (spell: Spell, evidence: Evidence): boolean => {
  const reports = satelliteReports(spell, evidence);
  return (
    cover(reports, spanOfSpell(spell, evidence.session)) &&
    reports.every(({ loopDelayMs }) => loopDelayMs < frozenMs)
  );
};

export const serverUnreachable: Rule = {
  cause: 'server-unreachable',
  judge(spell, evidence) {
    const { session, nameOf } = evidence;
    if (spell.kind === 'slow' || !isEmbedded(spell, nameOf)) return null;
    const frozen = Math.max(0, ...satelliteReports(spell, evidence).map(({ loopDelayMs }) => loopDelayMs));
    if (frozen >= frozenMs)
      return {
        confidence: sure.strong + 0.05,
        because: 'the server did not respond',
        evidence: [`Its process did not run for ${span(frozen)}.`],
      };
    if (spell.kind === 'stall' || satelliteRan(spell, evidence)) return null;
    const during = spanOfSpell(spell, session);
    const outage = session.events.find(
      (event) =>
        event.kind === 'server-unreachable' && overlaps({ from: event.at - event.ms, to: event.at }, during),
    );
    if (outage?.kind !== 'server-unreachable') return null;
    return {
      confidence: sure.likely,
      because: 'the server could not be reached',
      evidence: [`Requests to it failed for ${span(outage.ms)}.`],
    };
  },
};
