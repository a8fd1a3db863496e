import type WebSocket from 'ws';
import { rejectPeer } from './peer.ts';

/** Empties a relay, and lets it serve again. */
export interface Draining {
  readonly active: boolean;
  /** Resolves when there are no sessions; never if draining ends before. */
  begin(): Promise<void>;
  /** Closes the clients' sockets, spread over `overMs`. */
  evict(clients: Iterable<WebSocket>, overMs: number): void;
  /** Must be called when a session has ended. */
  sessionEnded(): void;
  end(): void;
  /** For a relay that closes: it accepts nothing more, and closes all sockets itself. */
  close(): void;
}

export function makeDraining(sessions: () => number): Draining {
  const evictionTimers = new Set<NodeJS.Timeout>();
  let active = false;
  let onDrained: (() => void)[] = [];

  function notifyIfDrained(): void {
    if (!active || sessions() > 0) return;
    for (const resolve of onDrained) resolve();
    onDrained = [];
  }

  function cancelEvictions(): void {
    for (const timer of evictionTimers) clearTimeout(timer);
    evictionTimers.clear();
  }

  return {
    get active() {
      return active;
    },
    begin() {
      active = true;
      const drained = new Promise<void>((resolve) => onDrained.push(resolve));
      notifyIfDrained();
      return drained;
    },
    evict(clients, overMs) {
      const all = [...clients];
      const intervalMs = overMs / Math.max(all.length, 1);
      for (const [index, client] of all.entries()) {
        const timer = setTimeout(() => {
          evictionTimers.delete(timer);
          rejectPeer(client, 4503);
        }, index * intervalMs);
        evictionTimers.add(timer);
      }
    },
    sessionEnded: notifyIfDrained,
    end() {
      active = false;
      // Otherwise they would be told when a later draining has finished.
      onDrained = [];
      cancelEvictions();
    },
    close() {
      active = true;
      cancelEvictions();
    },
  };
}
