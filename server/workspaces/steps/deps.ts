import type { Database } from '../../database/pool.ts';
import type { ShutdownScript } from '../../idle/policy-source.ts';

export interface StepDeps {
  database: Database;
  now: () => Date;
  /** When this server started. Before that, agents may have had no server to report to. */
  startedAt: Date;
  /**
   * The agent token of a build. It is the same every time, so that repeating a step does not cut off the agent that the
   * first run started.
   */
  agentToken: (buildId: string) => string;
  /** The URLs at which agents reach the server, comma separated, best first. */
  agentUrl: () => Promise<string>;
  /** The shutdown script of what a build has started. */
  shutdownScript: (buildId: string) => Promise<ShutdownScript | null>;
  /** How long the home of a deleted workspace is retained. */
  homeGraceMs: number;
}
