import { findEnterFailure } from '../prepare/enter-plan.ts';
import type { EndCause, ProviderError } from '../provider.ts';
import { formatQuantity } from '../quantity.ts';
import { endedPrefix } from './unit.ts';

/** What systemd writes if it could not execute the program. */
const notExecuted = '203';

/** How an agent ended that systemd had started. */
export interface AgentExit {
  cause: EndCause;
  /** What happened, in words that follow "The agent". */
  text: string;
  /** Whether the image could not even start Node. */
  isNotExecutable: boolean;
}

/** Reads what the agent's unit writes at its end: systemd's result, code and status, and the state of the system. */
export function explainAgentExit(said: string, memoryLimitBytes: number | null): AgentExit {
  const [result, code, status, system] = said.trim().split(' ');
  const exit = (cause: EndCause, text: string): AgentExit => ({
    cause,
    text,
    isNotExecutable: status === notExecuted,
  });
  if (system === 'stopping') return exit('removed', 'ended because its instance was shut down, not by cde');
  if (result === 'oom-kill') {
    const limit = memoryLimitBytes === null ? '' : ` (limit ${formatQuantity(memoryLimitBytes)})`;
    return exit('out-of-memory', `ran out of memory${limit}`);
  }
  return exit(
    'agent-exited',
    code === 'exited' ? `exited with code ${status}` : `was killed by SIG${status}`,
  );
}

/** How the agent ended, as its unit wrote to the serial console; null: it did not. */
export function findAgentExit(console: string): AgentExit | null {
  const at = console.lastIndexOf(endedPrefix);
  const said =
    at < 0
      ? ''
      : console
          .slice(at + endedPrefix.length)
          .split('\n')[0]!
          .trim();
  return said ? explainAgentExit(said, null) : null;
}

/** Why a start failed whose agent ended at once. `tail`: the last that it printed. `memoryHint`: what gives it more memory. */
export function describeEarlyExit(
  { cause, text, isNotExecutable }: AgentExit,
  tail: string,
  memoryHint: string,
): ProviderError {
  const detail = tail.trim() || 'It printed nothing.';
  const said = findEnterFailure(tail);
  if (said) return { ...said, detail, fault: /^(image|kernel)-/.test(said.code) ? 'user' : 'system' };
  if (isNotExecutable)
    return {
      code: 'image-not-supported',
      message: 'The image has no glibc, which the agent needs.',
      detail,
      hint: 'Use another image.',
      fault: 'user',
    };
  if (cause === 'out-of-memory')
    return {
      code: 'agent-out-of-memory',
      message: `The agent ${text} right after its start.`,
      detail,
      hint: memoryHint,
      fault: 'user',
    };
  return {
    code: 'agent-died',
    message: `The agent ${text} right after its start.`,
    detail,
    hint: 'Its last lines are above; start the workspace again when their cause is gone.',
    fault: 'system',
  };
}
