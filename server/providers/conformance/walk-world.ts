import type { Provider, ProviderState, WorkspaceSpec } from '../provider.ts';
import type { ConformanceSubject } from './conformance.ts';

/** The connection of one replica to the platform, which a walk breaks. */
export interface FaultyConnection {
  set(mode: 'open' | 'cut' | 'slow' | 'error'): void;
  /** Like `cut` for good, after so many more calls. */
  dieAfter(calls: number): void;
  readonly isDead: boolean;
  close(): Promise<void>;
}

export interface WalkSubject extends Omit<ConformanceSubject, 'makeProvider'> {
  /** A server that just started. `connection`: absent if nothing lies between the provider and its platform. */
  makeReplica(): Promise<{ provider: Provider; connection?: FaultyConnection }>;
  /** Whether observations can come from a list of some seconds ago, also if the platform does not answer by now. */
  observesFromLists?: boolean;
  /** The same workspace on a newer image. */
  updateOf(spec: WorkspaceSpec): WorkspaceSpec;
  /** Removes the compute of a workspace from the platform, if there is any. */
  removeCompute(spec: WorkspaceSpec): Promise<void>;
}

/** A workspace as the database of the server would have it. */
export interface WalkWorkspace {
  spec: WorkspaceSpec;
  state: ProviderState;
  /** What its home must contain; null: nothing was written yet. */
  mark: string | null;
  isRunning: boolean;
  /** The retained home that it takes over, until a start is done. */
  claims: RetainedHome | null;
}

export interface RetainedHome {
  spec: WorkspaceSpec;
  state: ProviderState;
  mark: string | null;
  isClaimed: boolean;
}

export interface WalkReport {
  seed: number;
  operations: number;
  steps: number;
  starts: number;
  faults: Record<string, number>;
  /** Failures that an injected fault excuses, by code. */
  failures: Record<string, number>;
  homesChecked: number;
}

/** What the lanes of a walk share. */
export interface WalkWorld {
  subject: WalkSubject;
  report: WalkReport;
  /** The workspaces, by slot. */
  workspaces: (WalkWorkspace | null)[];
  retained: Set<RetainedHome>;
  nextBuild(): string;
  nextMark(): string;
  /** Closes a replica that is no longer used. */
  retire(replica: { provider: Provider; connection?: FaultyConnection }): void;
}
