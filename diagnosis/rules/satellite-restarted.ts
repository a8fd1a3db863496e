import { type Rule, sure } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';
import { isEmbedded } from './server-unreachable.ts';

/** A satellite registers within this time after its connections are gone. */
const aroundMs = 20_000;

export const satelliteRestarted: Rule = {
  cause: 'satellite-restarted',
  judge(spell, { session, satelliteEvents, nameOf }) {
    if (spell.kind === 'slow' || spell.path?.kind !== 'relay') return null;
    const name = nameOf(spell.path.via);
    const { from, to } = spanOfSpell(spell, session);
    const isDrained = spell.reason === 'satellite-draining';
    if (isDrained || spell.reason === 'satellite-restarted')
      return {
        confidence: sure.certain,
        because: isEmbedded(spell, nameOf)
          ? 'the server was restarted, with the satellite in it'
          : `the satellite ${name} ${isDrained ? 'was drained' : 'was restarted'}`,
        evidence: ['It said so when it closed the connection.'],
      };
    const event = satelliteEvents.find(
      ({ satellite, at }) => satellite === name && at >= from - aroundMs && at <= to + aroundMs,
    );
    if (!event) return null;
    return {
      confidence: sure.strong + 0.05,
      because: `the satellite ${name} ${event.kind === 'draining' ? 'was drained' : 'was restarted'}`,
      evidence: [
        event.kind === 'draining' ? 'It was told to drain at that time.' : 'It started at that time.',
      ],
    };
  },
};
