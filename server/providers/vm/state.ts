import type { ProviderState } from '../provider.ts';

/** What a provider of virtual machines in a cloud remembers; the rest it finds there by labels. */
export interface State {
  /** The volume of the home. If it is missing, the home is lost. */
  home?: string;
  /** Whether no agent has run on the home yet: then it is empty, and can be created again. */
  isUnused?: boolean;
  /** The machine and boot whose agent was seen running. */
  run?: string;
  /** The home inside the workspace. */
  directory?: string;
  /** The size of its volume, as Kubernetes writes it. */
  size?: string;
  /** The boot that a start has already failed for, so that it is reported once. */
  reportedRun?: string;
  /** The workspace whose home this one takes over, until a start on it is done. */
  restoring?: string;
  /** What a stop does with the machine. */
  onStop?: 'terminate' | 'keep';
  /** How many snapshots of the home are kept. */
  snapshots?: number;
  /** Whether the stop in progress has taken its snapshot. */
  hasSnapshot?: boolean;
  /** What the last step waited for, which is logged once. */
  waitingFor?: string;
  /** What a step of this build began, which the cloud can still refuse. */
  operation?: { build: string; name: string; zone: string };
  /** The zones that had no capacity for this build. */
  full?: { build: string; zones: string[] };
}

export const readState = (state: ProviderState): State => state as State;
export const writeState = (state: State): ProviderState => ({ ...state });

/** What a step has begun in a zone, if the cloud named it. */
export const begun = (name: string | undefined, build: string, zone: string): Pick<State, 'operation'> =>
  name === undefined ? {} : { operation: { build, name, zone } };

/** What is remembered beyond a transition. */
export function settled(state: State): State {
  const { waitingFor: _w, reportedRun: _r, operation: _o, full: _f, ...kept } = state;
  return kept;
}
