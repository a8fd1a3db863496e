import { type Rule, sure } from '../rule.ts';
import { endAround } from './builds-around.ts';

/** Codes of the provider contract for ends that came from the machine below. */
const words: Record<string, string> = {
  'node-lost': 'stopped answering',
  'node-drained': 'was drained',
  'node-restarted': 'was restarted',
  'node-refused': 'refused the workspace',
  evicted: 'evicted the workspace',
  preempted: 'was needed for other work',
  disrupted: 'ended the workspace',
};

export const nodeLost: Rule = {
  cause: 'node-lost',
  judge(spell, evidence) {
    const word = words[endAround(spell, evidence) ?? ''];
    if (word === undefined) return null;
    return {
      confidence: sure.certain,
      because: `the machine below the workspace ${word}`,
      evidence: ['The platform reported it, and the workspace was started again.'],
    };
  },
};
