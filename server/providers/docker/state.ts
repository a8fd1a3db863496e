import type { ProviderState } from '../provider.ts';

/** What the provider remembers; the rest it finds on the engine by name. */
export interface State {
  /** The container whose agent was seen running. */
  container?: string;
  /** The volume of the home. If it is missing, the home is lost. */
  home?: string;
  /** The home inside the workspace. */
  directory?: string;
  /** The run that a start has already failed for, so that it is reported once. */
  reportedRun?: string;
  /** The workspace whose home this one takes over, until a start on it is done. */
  restoring?: string;
  /** What the last step waited for, which is logged once. */
  waitingFor?: string;
}

export const readState = (state: ProviderState): State => state as State;
export const writeState = (state: State): ProviderState => ({ ...state });
