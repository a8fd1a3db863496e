import { windowsIn } from '../evidence.ts';
import { type Rule, sure } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';
import { endAround } from './builds-around.ts';

export const workspaceOutOfMemory: Rule = {
  cause: 'workspace-out-of-memory',
  judge(spell, evidence) {
    if (endAround(spell, evidence) === 'out-of-memory')
      return {
        confidence: sure.certain,
        because: 'the workspace ran out of memory and was restarted',
        evidence: ['The platform ended it at its memory limit.'],
      };
    const { from, to } = spanOfSpell(spell, evidence.session);
    const windows = windowsIn(evidence.workspace, { from: from - 10_000, to: to + 10_000 });
    const kills = windows.reduce((sum, { outOfMemoryKills }) => sum + outOfMemoryKills, 0);
    if (kills === 0) return null;
    return {
      confidence: sure.strong + 0.05,
      because: 'the workspace ran out of memory',
      evidence: [`The kernel ended ${kills === 1 ? 'a process' : `${kills} processes`} of it.`],
    };
  },
};
