import { type Rule, sure } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';
import { buildsAround, hasContinued } from './builds-around.ts';

const beforeMs = 5_000;
const afterMs = 30_000;

export const agentRestarted: Rule = {
  cause: 'agent-restarted',
  judge(spell, evidence) {
    if (spell.kind === 'slow') return null;
    const builds = buildsAround(spell, evidence);
    const endCause = builds.find((build) => build.endCause !== null)?.endCause;
    if (endCause === 'agent-exited' || endCause === 'agent-not-started' || endCause === 'unknown')
      return {
        confidence: sure.strong + 0.05,
        because: 'the agent of the workspace ended and was started again',
        evidence: ['Its process was gone.'],
      };
    if (builds.some(({ transition, restart }) => transition !== 'start' || restart)) return null;
    const { from, to } = spanOfSpell(spell, evidence.session);
    const until = hasContinued(spell) ? to : to + afterMs;
    const isStarted = evidence.agentStarts.some((at) => at >= from - beforeMs && at <= until);
    if (!isStarted && spell.reason !== 'agent-restarted') return null;
    return {
      confidence: isStarted ? sure.strong + 0.05 : sure.strong,
      because: 'the agent of the workspace was restarted',
      evidence: [isStarted ? 'A new process of it registered.' : 'It did not know the session.'],
    };
  },
};
