import { type Rule, sure } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';

/** UDP is looked for again soon after a path by UDP broke. */
const searchMs = 60_000;

export const udpBlocked: Rule = {
  cause: 'udp-blocked',
  judge(spell, { session }) {
    if (spell.path?.kind !== 'direct-udp' || spell.kind === 'slow') return null;
    const { from, to } = spanOfSpell(spell, session);
    const isOnTcp = spell.resumedOn !== null && spell.resumedOn.kind !== 'direct-udp';
    const failed = session.events.some(
      (event) => event.kind === 'udp-failed' && event.at >= from && event.at <= to + searchMs,
    );
    if (!isOnTcp || !failed) return null;
    return {
      confidence: sure.strong,
      because: 'the network stopped passing UDP',
      evidence: ['The direct path by UDP fell silent, no other was found, and TCP worked.'],
    };
  },
};
