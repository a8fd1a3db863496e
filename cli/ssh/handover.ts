/** Where `cde ssh` leaves its opening for the `cde ssh --stdio` beneath its ssh. */
export const openingVariable = 'CDE_SSH_OPENING';

/** Takes it out of the environment, so that no child inherits it; opening.ts reads it. */
export function takeHandover(env: NodeJS.ProcessEnv): string | undefined {
  const text = env[openingVariable];
  delete env[openingVariable];
  return text || undefined;
}
