import { windowsIn } from '../evidence.ts';
import { excessOf, isNear } from '../legs.ts';
import { type Rule, sure, trip } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';

const busyLoopMs = 60;

export const satelliteOverloaded: Rule = {
  cause: 'satellite-overloaded',
  judge(spell, evidence) {
    if (spell.path?.kind !== 'relay') return null;
    const name = evidence.nameOf(spell.path.via);
    if (spell.reason === 'satellite-overloaded')
      return {
        confidence: sure.certain,
        because: `the satellite ${name} was at its limit`,
        evidence: ['It said so when it closed the connection.'],
      };
    if (spell.kind !== 'slow' && spell.kind !== 'stall') return null;
    const late = windowsIn(evidence.satellites, spanOfSpell(spell, evidence.session))
      .filter(({ satellite }) => satellite === name)
      .map(({ loopDelayMs }) => loopDelayMs);
    const worst = Math.max(0, ...late);
    if (worst < busyLoopMs) return null;
    const excess = excessOf(spell, evidence);
    if (excess.near !== null && !isNear(excess) && spell.kind === 'slow') return null;
    return {
      confidence: sure.strong,
      because: `the satellite ${name} was too busy`,
      evidence: [`It handled packets ${trip(worst)} late.`],
    };
  },
};
