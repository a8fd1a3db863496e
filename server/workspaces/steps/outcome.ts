import type { NewLine } from '../builds/build-log.ts';
import type { BuildRequest } from '../model.ts';
import type { BuildRow, WorkspaceRow } from '../store.ts';

/** The state that a step starts from. */
export interface Snapshot {
  workspace: WorkspaceRow;
  owner: { username: string; name: string; email: string | null };
  /** The oldest unfinished build. */
  build: BuildRow | null;
}

/** A snapshot of a workspace with an unfinished build. */
export type BuildSnapshot = Snapshot & { build: BuildRow };

/** `owner/name` of the snapshot's workspace. */
export const refOf = ({ workspace, owner }: Snapshot) => `${owner.username}/${workspace.name}`;

/** What a step changes. The reconciler commits all of it or nothing. */
export interface Outcome {
  workspace?: Partial<WorkspaceRow>;
  build?: Partial<BuildRow>;
  lines?: NewLine[];
  /** When to take the next step, in ms. Absent: when an event wakes the workspace. */
  requeue?: number | 'now';
  /** A build that the server requests after the commit. */
  followUp?: BuildRequest;
  /** A retained home that this workspace had claimed but did not take over, and until when it is now retained. */
  releaseHome?: { workspaceId: string; until: Date };
}

/** The agent columns of a workspace without compute. */
export const noAgent = { agentBuildId: null, agentTlsKey: null, agentSeenAt: null, agentStats: null };
