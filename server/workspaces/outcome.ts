import type { NewLine } from './build-log.ts';
import type { BuildRequest } from './builds.ts';
import type { BuildRow, WorkspaceRow } from './store.ts';

/** What a step starts from. */
export interface Snapshot {
  workspace: WorkspaceRow;
  owner: { username: string; name: string; email: string | null };
  /** The oldest build that has not ended. */
  build: BuildRow | null;
}

/** What a step comes to; reconcile.ts records it, all or nothing. */
export interface Outcome {
  workspace?: Partial<WorkspaceRow>;
  build?: Partial<BuildRow>;
  lines?: NewLine[];
  /** Come back after so many ms; `now` at once; absent: when something wakes us. */
  again?: number | 'now';
  /** A build that the server itself asks for, once the rest is recorded. */
  request?: BuildRequest;
  /** A kept home that this workspace had claimed and did not take over: until when it is kept now. */
  giveBack?: { workspaceId: string; until: Date };
}

/** Of a workspace whose compute is gone. */
export const noAgent = { agentBuildId: null, agentTlsKey: null, agentSeenAt: null, agentStats: null };
