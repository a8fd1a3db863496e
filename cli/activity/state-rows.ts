import type { WorkspaceActivity } from '@cde/api/activity.ts';
import { causeText, stopText } from '@cde/api/idle-text.ts';
import { clean } from '../output.ts';

/** Why it is awake and when it stops. */
export function stateRows({ state }: Pick<WorkspaceActivity, 'state'>): [string, string][] {
  if (!state) return [['awake', 'no: it does not run']];
  const now = Date.now();
  return [
    ['awake', `because of ${clean(causeText(state.awakeBecause, now))}`],
    ['stops', stopText(state, now).replace(/^Stops /, '')],
  ];
}
