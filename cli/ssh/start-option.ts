/** Of every command that connects to a workspace. */
export const startOptions = {
  start: { kind: 'flag', help: 'Start a stopped workspace without asking' },
  noStart: { kind: 'flag', help: 'Do not start a stopped workspace' },
} as const;

export interface StartInput {
  start: boolean;
  noStart: boolean;
}
