import { busyReason, windowsIn } from '../evidence.ts';
import { type Rule, sure } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';

export const clientOverloaded: Rule = {
  cause: 'client-overloaded',
  judge(spell, { session }) {
    if (spell.kind !== 'slow' && spell.kind !== 'stall') return null;
    const windows = windowsIn(session.windows, spanOfSpell(spell, session));
    const busy = windows.flatMap(({ host }) => busyReason(host) ?? []);
    if (busy.length === 0 || busy.length * 2 < windows.length) return null;
    return {
      confidence: sure.strong,
      because: 'this machine was too busy to handle the connection in time',
      evidence: [`On this machine ${busy[0]}.`],
    };
  },
  exclude(spell, { session }) {
    const windows = windowsIn(session.windows, spanOfSpell(spell, session));
    const isIdle = windows.length > 0 && windows.every(({ host }) => busyReason(host) === null);
    return isIdle ? 'This machine had CPU time to spare.' : null;
  },
};
