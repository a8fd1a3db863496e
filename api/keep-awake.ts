// Shared with the `cde` command of the agent and with the CLI, which start without zod.

/** In the environment of sessions: the path of the Unix socket on which the agent serves programs in the workspace. */
export const agentSocketVariable = 'CDE_AGENT_SOCKET';

export const maxReasonLength = 200;

/** A command line as the reason of a lease: one line of valid text that is not too long for the API. */
export function reasonOf(command: readonly string[]): string {
  const line = command
    .join(' ')
    .toWellFormed()
    .replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, ' ')
    .slice(0, maxReasonLength);
  // A character that was cut in half.
  return line.replace(/\p{Cs}$/u, '');
}
