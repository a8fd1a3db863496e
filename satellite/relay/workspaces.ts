import { type Bucket, makeBucket } from '@cde/tunnel/network/token-bucket.ts';
import type { RelayCloseCode } from '@cde/tunnel/paths/relay-protocol.ts';
import type WebSocket from 'ws';
import type { RelayLimits } from './limits.ts';

/** A socket that is not paired yet. */
export interface WaitingSocket {
  socket: WebSocket;
  /** Stops waiting: to be paired or, with a code, to be closed. */
  leave(code?: RelayCloseCode): void;
}

/** An agent's idle socket. */
export interface Spare extends WaitingSocket {
  buildId: string;
}

/** A client that waits for an agent. */
export interface WaitingDial extends WaitingSocket {
  userId: string;
  /** What the client has sent so far. */
  early: Buffer[];
  /** Its user's budget for small messages. */
  small: Bucket;
}

export interface WorkspaceState {
  /** Oldest first; the newest is used first because it is the most likely to be alive. */
  spares: Spare[];
  dials: WaitingDial[];
  sessions: number;
  /** Budget for small messages of its agents' sockets. */
  small: Bucket;
  isPresent: boolean;
  absenceTimer: NodeJS.Timeout | undefined;
}

/** The state of each workspace that has a socket here, and whether its agent counts as connected. */
export function makeWorkspaceRegistry(
  limits: RelayLimits,
  onPresence: ((workspaceId: string, isConnected: boolean) => void) | undefined,
) {
  const workspaces = new Map<string, WorkspaceState>();

  /** Must be called after every change: reports presence and forgets a workspace without sockets. */
  function update(workspaceId: string, workspace: WorkspaceState): void {
    if (workspace.spares.length > 0 || workspace.sessions > 0) {
      clearTimeout(workspace.absenceTimer);
      workspace.absenceTimer = undefined;
      if (workspace.isPresent) return;
      workspace.isPresent = true;
      onPresence?.(workspaceId, true);
    } else if (workspace.isPresent) {
      workspace.absenceTimer ??= setTimeout(() => {
        workspace.absenceTimer = undefined;
        workspace.isPresent = false;
        onPresence?.(workspaceId, false);
        update(workspaceId, workspace);
      }, limits.presenceGraceMs).unref();
    } else if (workspace.dials.length === 0) {
      workspaces.delete(workspaceId);
    }
  }

  return {
    /** Returns the workspace's state, creating it if needed. */
    get(workspaceId: string): WorkspaceState {
      const known = workspaces.get(workspaceId);
      if (known) return known;
      const created: WorkspaceState = {
        spares: [],
        dials: [],
        sessions: 0,
        small: makeBucket(limits.smallMessages),
        isPresent: false,
        absenceTimer: undefined,
      };
      workspaces.set(workspaceId, created);
      return created;
    },
    update,
    isConnected: (workspaceId: string) => workspaces.get(workspaceId)?.isPresent ?? false,
    waiting: (): WaitingSocket[] =>
      [...workspaces.values()].flatMap(({ spares, dials }) => [...spares, ...dials]),
    stats() {
      let spares = 0;
      let waitingDials = 0;
      for (const workspace of workspaces.values()) {
        spares += workspace.spares.length;
        waitingDials += workspace.dials.length;
      }
      return { workspaces: workspaces.size, spares, waitingDials };
    },
    close() {
      for (const workspace of workspaces.values()) clearTimeout(workspace.absenceTimer);
    },
  };
}
