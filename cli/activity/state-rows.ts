import type { WorkspaceActivity } from '@cde/api/activity.ts';
import { causeText, startValue, stopValue } from '@cde/api/idle-text.ts';
import { clean } from '../output/output.ts';

/** Why it is awake and when it stops; of one that does not run, when its schedule starts it. */
export function stateRows({
  state,
  startsAt,
}: Partial<Pick<WorkspaceActivity, 'state' | 'startsAt'>>): [string, string][] {
  const now = Date.now();
  if (!state) return startsAt ? [['starts', startValue(startsAt, now)]] : [];
  return [
    ['awake', `because of ${clean(causeText(state.awakeBecause, now))}`],
    ['stops', stopValue(state, now)],
  ];
}
