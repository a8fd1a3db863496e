import type { ProviderState } from '../provider.ts';
import type { KubeRef } from './client.ts';

/** What the provider remembers of a workspace between moves. All of it can be absent: moves are cut short. */
export interface State {
  cluster?: string;
  namespace?: string;
  /** The home's directory inside; the server tells it to the agent. */
  home?: string;
  homeVolume?: string;
  /** The build whose objects were applied, and when. */
  applied?: string;
  appliedAt?: string;
  /** What the template's own part was made of, to prune what a newer version does not name. */
  inventory?: KubeRef[];
  /** The pod that runs, and how often its container had been started when it was found running. */
  podUid?: string;
  restarts?: number;
  /** Of the ResourceQuota as the cluster returned it: an edit of it shows. */
  quota?: string;
  /** The last reason that was written into the build's log. */
  said?: string;
  /** A stop has scaled the workloads: a start has to bring them back. */
  scaledDown?: boolean;
}

export const read = (state: ProviderState): State => state as State;
export const write = (state: State): ProviderState =>
  Object.fromEntries(Object.entries(state).filter(([, value]) => value !== undefined));
