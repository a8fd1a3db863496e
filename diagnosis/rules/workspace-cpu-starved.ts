import { busyReason, windowsIn } from '../evidence.ts';
import { excessOf, isNear } from '../legs.ts';
import { type Rule, sure } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';

export const workspaceCpuStarved: Rule = {
  cause: 'workspace-cpu-starved',
  judge(spell, evidence) {
    if (spell.kind === 'ended') return null;
    const windows = windowsIn(evidence.workspace, spanOfSpell(spell, evidence.session));
    const busy = windows.flatMap(({ host }) => busyReason(host) ?? []);
    if (busy.length === 0 || isNear(excessOf(spell, evidence))) return null;
    // A busy workspace alone does not break a connection.
    if (spell.kind === 'drop' && spell.reason !== 'agent-lost') return null;
    return {
      confidence: spell.kind === 'drop' ? sure.likely : sure.strong + 0.03,
      because: 'the workspace had too little CPU time',
      evidence: [`In the workspace ${busy[0]}.`],
    };
  },
  exclude(spell, { workspace, session }) {
    const windows = windowsIn(workspace, spanOfSpell(spell, session));
    const isIdle = windows.length > 0 && windows.every(({ host }) => busyReason(host) === null);
    return isIdle ? 'The workspace had CPU time to spare.' : null;
  },
};
