import type { SessionEvent } from '../evidence.ts';
import { type Rule, span, sure } from '../rule.ts';
import type { Spell } from '../spells.ts';

/** Connections that live equally long are ended by a clock. */
const minRepeats = 3;
const tolerance = 0.1;
/** Shorter lives are failures, longer ones no policy of a proxy. */
const life = { min: 5_000, max: 4 * 3600_000 };

/** How long the connections lived that ended by being closed, up to this one. */
function livesOf(events: readonly SessionEvent[], spell: Spell): number[] {
  const lives: number[] = [];
  let openedAt: number | undefined;
  for (const event of events) {
    if ('path' in event && (event.kind === 'opened' || event.kind === 'resumed' || event.kind === 'moved'))
      openedAt = event.path.kind === 'relay' ? event.at : undefined;
    if (event.kind !== 'lost' || event.at - event.silentMs > spell.from) continue;
    if (openedAt !== undefined && event.reason === 'satellite-lost') lives.push(event.at - openedAt);
    openedAt = undefined;
  }
  return lives;
}

export const proxyInterference: Rule = {
  cause: 'proxy-interference',
  judge(spell, { session }) {
    if (spell.kind !== 'drop' || spell.reason !== 'satellite-lost') return null;
    const lives = livesOf(session.events, spell).slice(-minRepeats);
    const mean = lives.reduce((sum, ms) => sum + ms, 0) / lives.length;
    const isRegular =
      lives.length === minRepeats &&
      mean >= life.min &&
      mean <= life.max &&
      lives.every((ms) => Math.abs(ms - mean) <= mean * tolerance);
    if (!isRegular) return null;
    return {
      confidence: sure.strong,
      because: `something in between closes connections after ${span(mean)}`,
      evidence: [`The last ${minRepeats} connections to the satellite lived ${span(mean)} each.`],
    };
  },
};
