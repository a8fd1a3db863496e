import { constants } from 'node:os';
import type { EndCause, StepResult } from '../provider.ts';
import type { Exit, RunRecord, Runs } from './runs.ts';

/** An agent that exits within this time (ms) never worked, so its build fails with its output. */
export const earlyExitMs = 5_000;

/** Identifies a run of an agent. */
export const runIdOf = (compute: RunRecord): string => `${compute.pid}:${compute.startTime}`;

/** Why an agent exited: the cause, and a phrase that follows "The agent". */
export interface ExitReason {
  cause: EndCause;
  text: string;
}

export function explainExit(
  runs: Runs,
  workspaceId: string,
  compute: RunRecord,
  exit: Exit | null,
): ExitReason {
  if (!exit) {
    // The supervisor died as well, so the exit was not recorded.
    if (compute.machine === runs.machine)
      return { cause: 'agent-exited', text: 'was killed together with its supervisor' };
    const isOtherBoot = compute.machine.split('/')[0] !== runs.machine.split('/')[0];
    return {
      cause: 'node-restarted',
      text: isOtherBoot
        ? 'ended because the machine was restarted'
        : "ended because the server's container was replaced",
    };
  }
  const limit = runs.read(workspaceId, 'memory');
  if (exit.outOfMemory && exit.code !== 0)
    return { cause: 'out-of-memory', text: `ran out of memory${limit ? ` (limit ${limit})` : ''}` };
  const signal = Object.entries(constants.signals).find(([, number]) => number === exit.code - 128)?.[0];
  return {
    cause: 'agent-exited',
    text: signal ? `was killed by ${signal}` : `exited with code ${exit.code}`,
  };
}

/** The failure of an agent that never worked, with its last lines. Reported once per run. */
export function earlyExitFailure(
  runs: Runs,
  workspaceId: string,
  compute: RunRecord,
  exit: Exit | null,
): StepResult {
  const { cause, text } = explainExit(runs, workspaceId, compute, exit);
  const isOutOfMemory = cause === 'out-of-memory';
  return {
    kind: 'failed',
    state: { ...compute, reportedExit: runIdOf(compute) },
    error: {
      code: isOutOfMemory ? 'agent-out-of-memory' : 'agent-died',
      message: `The agent ${text} right after its start.`,
      detail: runs.tail(workspaceId) || 'It printed nothing.',
      hint: isOutOfMemory
        ? "Raise the template's limit local.memory."
        : 'Its last lines are above; start the workspace again when their cause is gone.',
      fault: isOutOfMemory ? 'user' : 'system',
    },
  };
}
