import { type Rule, sure } from '../rule.ts';
import { buildsAround } from './builds-around.ts';

const words = { stop: 'stopped', delete: 'deleted', start: 'restarted' } as const;

export const workspaceStopped: Rule = {
  cause: 'workspace-stopped',
  judge(spell, evidence) {
    if (spell.kind === 'slow') return null;
    const build = buildsAround(spell, evidence).find(
      ({ transition, restart, endCause }) => endCause === null && (transition !== 'start' || restart),
    );
    if (!build) {
      if (spell.reason !== 'workspace-stopped') return null;
      return {
        confidence: sure.likely,
        because: 'the workspace was stopped',
        evidence: ['The server said that it no longer runs.'],
      };
    }
    const who = build.policy ? `by its ${build.policy} policy` : `by ${build.by}`;
    return {
      confidence: sure.certain,
      because: `the workspace was ${words[build.transition]} ${who}`,
      evidence: [build.reason === '' ? 'The build is in its history.' : `The reason given: ${build.reason}`],
    };
  },
};
