import type { Log } from '@cde/tunnel/log.ts';
import type { ProviderState } from '../provider.ts';
import type { BackgroundWork } from './background.ts';
import type { Homes } from './homes.ts';
import type { Isolation } from './isolation.ts';
import type { AgentProgram } from './launch.ts';
import type { findControllers } from './limits.ts';
import type { NetworkRepair } from './network-repair.ts';
import type { Runs } from './runs.ts';
import type { Uids } from './uids.ts';
import type { Watcher } from './watcher.ts';

/** What the steps of the local provider share. */
export interface LocalParts {
  dataDir: string;
  agent: AgentProgram;
  /** How long an agent has to end when asked to. */
  graceMs: number;
  log: Log;
  now: () => Date;
  homes: Homes;
  uids: Uids;
  runs: Runs;
  watcher: Watcher;
  networkRepair: NetworkRepair;
  background: BackgroundWork;
  controllers: ReturnType<typeof findControllers>;
  isolation: () => Promise<Isolation>;
  /** By workspace, which run was asked to end and when: kept here too, as a state that was not recorded loses it. */
  stopRequests: Map<string, StopRequest>;
}

export interface StopRequest {
  runId: string;
  /** Milliseconds since the epoch. */
  at: number;
}

/** What the provider remembers besides the run's own record. */
export interface LocalState {
  /** Where the home is inside the workspace. */
  home?: string;
  stopRequest?: StopRequest;
  /** The run whose early exit was reported already. */
  reportedExit?: string;
}

export const readState = (state: ProviderState): LocalState => state as LocalState;
