import { constants } from 'node:os';
import type { StepResult } from '../provider.ts';
import type { Exit, RunRecord, Runs } from './runs.ts';

/** An agent that ended sooner than this (ms) never worked; its build fails with what it said. */
export const earlyExitMs = 5_000;

/** Names one run of an agent: no other has both. */
export const runIdOf = (compute: RunRecord): string => `${compute.pid}:${compute.startTime}`;

/** Why an agent ended, as far as it left word of it. */
export function explainExit(runs: Runs, workspaceId: string, compute: RunRecord, exit: Exit | null): string {
  if (!exit) {
    if (compute.machine === runs.machine) return 'the agent was killed together with its supervisor';
    const restarted = compute.machine.split('/')[0] !== runs.machine.split('/')[0];
    return restarted ? 'the machine was restarted' : "the server's container was replaced";
  }
  const limit = runs.read(workspaceId, 'memory');
  if (exit.outOfMemory && exit.code !== 0) return `out of memory${limit ? ` (limit ${limit})` : ''}`;
  const signal = Object.entries(constants.signals).find(([, number]) => number === exit.code - 128)?.[0];
  return signal ? `the agent was killed by ${signal}` : `the agent exited with code ${exit.code}`;
}

/** The failed move of an agent that never worked, with its last lines; told once for each life. */
export function earlyExitFailure(
  runs: Runs,
  workspaceId: string,
  compute: RunRecord,
  exit: Exit | null,
): StepResult {
  const reason = explainExit(runs, workspaceId, compute, exit);
  const hungry = reason.startsWith('out of memory');
  return {
    kind: 'failed',
    state: { ...compute, told: runIdOf(compute) },
    error: {
      code: hungry ? 'agent-out-of-memory' : 'agent-died',
      message: `The agent ended right after its start: ${reason}.`,
      detail: runs.tail(workspaceId) || 'It said nothing.',
      hint: hungry
        ? "Raise the template's limit local.memory."
        : 'Its last lines are above; start the workspace again when their cause is gone.',
      fault: hungry ? 'user' : 'system',
    },
  };
}
