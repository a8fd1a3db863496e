import { overlaps } from '../evidence.ts';
import { type Rule, span, sure } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';

/**
 * A connection that did not survive the sleep is silent from then on, so the spell began during it. One that was heard
 * after waking has been lost for another reason.
 */
const afterWakingMs = 3_000;

export const clientSlept: Rule = {
  cause: 'client-slept',
  judge(spell, { session }) {
    // A session survives any sleep: what ended it, ended it meanwhile.
    if (spell.kind === 'slow' || (spell.kind === 'ended' && spell.reason !== 'session-timeout')) return null;
    const during = spanOfSpell(spell, session);
    const slept = session.events.filter(
      (event) =>
        event.kind === 'slept' &&
        overlaps(
          { from: event.at - event.ms, to: event.at + afterWakingMs },
          { from: during.from, to: during.from },
        ),
    );
    const inside = session.events.filter(
      (event) => event.kind === 'slept' && overlaps({ from: event.at - event.ms, to: event.at }, during),
    );
    const all = [...new Set([...slept, ...inside])];
    const sleptMs = all.reduce((sum, event) => sum + (event.kind === 'slept' ? event.ms : 0), 0);
    if (sleptMs < 1_000) return null;
    return {
      confidence: sure.certain,
      because: `this machine slept for ${span(sleptMs)}`,
      evidence: [`Its clock moved on by ${span(sleptMs)} in which no program ran.`],
    };
  },
  exclude: (_spell, { session }) => (session.windows.length > 0 ? 'This machine did not sleep.' : null),
};
