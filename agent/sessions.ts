import type { AgentStats } from '@cde/api/agent.ts';

export type SessionKind = AgentStats['sessions'][number]['kind'];

/** What the agent's stats call sessions: the things that developers have open right now. */
export interface Sessions {
  /** Notes that one has begun. Call the returned function once it has ended; further calls do nothing. */
  open(kind: SessionKind): () => void;
  /** Those open now, oldest first, at most 1000 (a browser may hold hundreds of port streams). */
  list(): AgentStats['sessions'];
}

const listLimit = 1000;

/** Keeps the list of open sessions; `now` gives the time in milliseconds. */
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
