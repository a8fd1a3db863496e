import { type Rule, sure } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';

/** UDP is looked for again soon after a path by UDP broke. */
const searchMs = 60_000;
/** A path by TCP that works within this time says that the network as a whole did. */
const atOnceMs = 3_000;

export const udpBlocked: Rule = {
  cause: 'udp-blocked',
  judge(spell, { session }) {
    if (spell.path?.kind !== 'direct-udp' || spell.kind === 'slow') return null;
    const { from, to } = spanOfSpell(spell, session);
    if (spell.resumedOn === null || spell.resumedOn.kind === 'direct-udp') return null;
    const failed = session.events.some(
      (event) => event.kind === 'udp-failed' && event.at >= from && event.at <= to + searchMs,
    );
    const lost = session.events.find(
      (event) =>
        event.kind === 'lost' && event.at >= from && event.at <= to && event.path.kind === 'direct-udp',
    );
    const isAtOnce = lost !== undefined && lost.at > from && to - lost.at <= atOnceMs;
    if (!failed && !(spell.reason === 'path-lost' && isAtOnce)) return null;
    return {
      confidence: failed ? sure.strong : sure.likely,
      because: 'the network stopped passing UDP',
      evidence: [
        failed
          ? 'The direct path by UDP fell silent, no other was found, and TCP worked.'
          : 'The direct path by UDP fell silent, and TCP worked at once.',
      ],
    };
  },
};
