import type { AgentStats } from '@cde/api/agent.ts';

export type SessionKind = AgentStats['sessions'][number]['kind'];

/** The open shells, commands, ports and file transfers, as reported in the agent's statistics. */
export interface Sessions {
  /** Adds a session. Call the returned function when it has ended; further calls have no effect. */
  open(kind: SessionKind): () => void;
  /** Open sessions, oldest first; at most 1000, since a browser may hold hundreds of port streams. */
  list(): AgentStats['sessions'];
}

const listLimit = 1000;

/** Tracks open sessions. */
export function makeSessions(now: () => number = Date.now): Sessions {
  const open = new Set<AgentStats['sessions'][number]>();
  return {
    open(kind) {
      const session = { kind, startedAt: new Date(now()).toISOString() };
      open.add(session);
      return () => {
        open.delete(session);
      };
    },
    list() {
      const listed: AgentStats['sessions'] = [];
      for (const session of open) {
        if (listed.length === listLimit) break;
        listed.push(session);
      }
      return listed;
    },
  };
}
