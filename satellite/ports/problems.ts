import { Problem } from '@cde/api/problem.ts';

/** The same for ports that do not exist and ports that this visitor must not open. */
export const notShared = () =>
  new Problem('port-not-shared', 'There is no such port, or you are not allowed to open it.', {
    hint: 'Ask the owner of the workspace to share it.',
  });

export const busy = (detail: string) =>
  new Problem('server-busy', 'This port cannot accept more connections at the moment.', {
    detail,
    hint: 'Try again in a few seconds.',
    retryAfter: 2,
  });
