import { busyLoopMs, windowsIn } from '../evidence.ts';
import { excessOf, isAsUsual, isBoth, isNear } from '../legs.ts';
import { type Rule, sure, trip } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';

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
    const excess = excessOf(spell, evidence);
    if (worst < busyLoopMs) {
      const isMeasured = late.length > 0;
      if (isMeasured || !isBoth(excess)) return null;
      return {
        confidence: sure.likely,
        because: `the satellite ${name} was too busy`,
        evidence: [
          `Round trips to ${name} were late from here (by ${trip(excess.near!)}) and from the workspace (by ${trip(excess.far!)}).`,
        ],
      };
    }
    // A satellite that is late is late for the agent, too.
    if (isAsUsual(excess.far)) return null;
    if (excess.near !== null && !isNear(excess) && !isBoth(excess) && spell.kind === 'slow') return null;
    return {
      confidence: sure.strong,
      because: `the satellite ${name} was too busy`,
      evidence: [`It handled packets ${trip(worst)} late.`],
    };
  },
};
