import type { ProviderState } from '../provider.ts';

/** What the provider remembers; the rest it finds on the server by name. */
export interface State {
  /** Where the home is: the first place to look for it. If it is missing, the home is lost. */
  home?: HomePlace;
  /** The run of the instance whose agent was seen running. */
  run?: string;
  /** The home inside the workspace. */
  directory?: string;
  /** The size of its volume, as Kubernetes writes it. */
  size?: string;
  /** The run that a start has already failed for, so that it is reported once. */
  reportedRun?: string;
  /** The workspace whose home this one takes over, until a start on it is done. */
  restoring?: string;
  /** What the last step waited for, which is logged once. */
  waitingFor?: string;
}

/** Where a volume is. */
export interface HomePlace {
  project: string;
  pool: string;
  name: string;
  /** The member of a cluster on whose disk it is; absent: all members reach it. */
  member?: string;
}

export const readState = (state: ProviderState): State => state as State;
export const writeState = (state: State): ProviderState => ({ ...state });
