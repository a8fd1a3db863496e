import { type HomeSpace, homeSpaceWarning, homeWarnPercents } from '@cde/api/home-space.ts';
import type { OpenTerminals } from './open-terminals.ts';

/** A home whose use goes up and down around a threshold is one occasion, not many. */
const hysteresisPercent = 3;

/** Warns in open terminals when the disk of the home has become nearly full, once for each threshold. */
export function makeHomeWarning({ openTerminals }: { openTerminals: Pick<OpenTerminals, 'show'> }) {
  let warnedAt = 0;
  return {
    /** Call this with each sample. */
    update(space: HomeSpace): void {
      const { homeFullPercent } = space;
      if (homeFullPercent === null) return;
      if (homeFullPercent <= warnedAt - hysteresisPercent) warnedAt = 0;
      const crossed = homeWarnPercents.findLast((percent) => homeFullPercent >= percent) ?? 0;
      if (crossed <= warnedAt) return;
      const text = `cde: the disk of your home is ${homeSpaceWarning(space)}. Delete what you no longer need, or ask for a larger home, before programs fail.`;
      // Without a terminal nobody was warned, and the first one that opens shows it.
      if (openTerminals.show(text, 'home') > 0) warnedAt = crossed;
    },
  };
}
