import type { Log } from '@cde/tunnel/log.ts';
import type { BackgroundWork } from '../background.ts';
import type { ProviderState } from '../provider.ts';
import type { Homes } from './homes.ts';
import type { Isolation } from './isolation.ts';
import type { AgentProgram } from './launch.ts';
import type { findControllers } from './limits.ts';
import type { NetworkRepair } from './network-repair.ts';
import type { Runs } from './runs.ts';
import type { Uids } from './uids.ts';
import type { Watcher } from './watcher.ts';

/** Shared by the steps of the local provider. */
export interface LocalParts {
  dataDir: string;
  agent: AgentProgram;
  /** How long an agent may take to exit. */
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
  /**
   * The run that was asked to exit, and when, by workspace. Also kept here, because a state that was not recorded is
   * lost.
   */
  stopRequests: Map<string, StopRequest>;
}

export interface StopRequest {
  runId: string;
  /** Milliseconds since the epoch. */
  at: number;
}

/** What the provider stores in addition to the run's own record. */
interface LocalState {
  /** The home's path inside the workspace. */
  home?: string;
  stopRequest?: StopRequest;
  /** The workspace whose home this one takes over, until a start on it is done. */
  restoring?: string;
  /** The run whose early exit was already reported. */
  reportedExit?: string;
}

export const readState = (state: ProviderState): LocalState => state as LocalState;
