import { type Rule, sure } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';

/** A change is noticed within a second; a connection can be lost before and after that. */
const aroundMs = 5_000;
const afterMs = 2_000;

export const clientNetworkChanged: Rule = {
  cause: 'client-network-changed',
  judge(spell, { session }) {
    if (spell.kind === 'slow') return null;
    const { from, to } = spanOfSpell(spell, session);
    const isChanged = session.events.some(
      (event) => event.kind === 'network-changed' && event.at >= from - aroundMs && event.at <= to + afterMs,
    );
    if (!isChanged) return null;
    return {
      confidence: sure.strong + 0.05,
      because: 'this machine changed its network',
      evidence: ['The addresses of this machine changed at that time.'],
    };
  },
  exclude: (_spell, { session }) =>
    session.windows.length > 0 ? 'The addresses of this machine stayed the same.' : null,
};
