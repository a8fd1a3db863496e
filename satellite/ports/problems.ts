import { Problem } from '@cde/api/problem.ts';

/** Says the same of what there is not and of what is not for this visitor. */
export const notShared = () =>
  new Problem('port-not-shared', 'There is no such port that you may open.', {
    hint: 'Ask the owner of the workspace to share it.',
  });

export const busy = (detail: string) =>
  new Problem('server-busy', 'No more connections to this port can be opened at the moment.', {
    detail,
    hint: 'Try again in a few seconds.',
    retryAfter: 2,
  });
