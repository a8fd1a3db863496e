import type { EndCause } from '../provider.ts';
import { type AgentExit, findAgentExit } from '../vm/agent-exit.ts';
import type { Operation } from './client.ts';

/** Operations that end a machine, and what they are to us. */
const reasons: [type: RegExp, cause: EndCause, text: string][] = [
  [/\.preempted$/, 'preempted', 'ended because Google reclaimed its spot instance'],
  [/\.hostError$/, 'node-lost', 'ended with the host of its instance'],
  [
    /\.(terminateOnHostMaintenance|hostMaintenance)$/,
    'node-drained',
    'ended for maintenance of the host of its instance',
  ],
];
const byPerson = /^(stop|suspend|compute\.instances\.(stop|suspend))$/;
const byGuest = /\.guestTerminate$/;

/** Why a machine ended. `operations`: its newest first. */
export function explainEndOf(operations: readonly Operation[], console: string): AgentExit {
  const end = (cause: EndCause, text: string): AgentExit => ({ cause, text, isNotExecutable: false });
  const type =
    operations
      .map(({ operationType = '' }) => operationType)
      .find(
        (each) =>
          byPerson.test(each) || byGuest.test(each) || reasons.some(([pattern]) => pattern.test(each)),
      ) ?? '';
  for (const [pattern, cause, text] of reasons) if (pattern.test(type)) return end(cause, text);
  const exit = findAgentExit(console);
  if (exit) return exit;
  if (byPerson.test(type)) return end('removed', 'ended because its instance was stopped, not by cde');
  if (byGuest.test(type)) return end('unknown', 'ended with its machine, which shut down');
  return end('unknown', 'ended, or its machine did');
}
