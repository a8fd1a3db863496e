import { overlaps } from '../evidence.ts';
import { type Rule, span, sure } from '../rule.ts';
import { type Spell, spanOfSpell } from '../spells.ts';

/** The satellite inside the server is named so, with a suffix on further replicas. */
export const isEmbedded = (spell: Spell, nameOf: (url: string) => string): boolean =>
  spell.path?.kind === 'relay' && /^embedded(-|$)/.test(nameOf(spell.path.via));

export const serverUnreachable: Rule = {
  cause: 'server-unreachable',
  judge(spell, { session, nameOf }) {
    if (spell.kind !== 'drop' && spell.kind !== 'ended') return null;
    const during = spanOfSpell(spell, session);
    const outage = session.events.find(
      (event) =>
        event.kind === 'server-unreachable' && overlaps({ from: event.at - event.ms, to: event.at }, during),
    );
    if (outage?.kind !== 'server-unreachable' || !isEmbedded(spell, nameOf)) return null;
    return {
      confidence: sure.strong,
      because: 'the server could not be reached',
      evidence: [`Requests to it failed for ${span(outage.ms)}.`],
    };
  },
};
