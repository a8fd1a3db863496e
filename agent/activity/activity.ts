import { type AgentActivity, type Signal, signalSources } from '@cde/api/activity.ts';

/** Collects the latest occurrence of each signal, for the agent's reports. */
export interface Activity {
  /** `by`: a username, or the name of a process or port. Cheap enough for every keystroke. */
  record(signal: Signal, by?: string, ageMs?: number): void;
  report(): AgentActivity;
  /** Monotonic milliseconds, for what recognizes signals. */
  now(): number;
  /** How long ago the latest signal was; null if there was none. */
  latestAgeMs(): number | null;
  /** Calls `listener` on every record, with what caused it. Returns how to stop that. */
  observe(listener: (signal: Signal, source: 'person' | 'work') => void): () => void;
}

/** The limit of the API. */
const maxNameLength = 120;

/** `now` returns monotonic milliseconds: clocks of workspaces jump when they are set. */
export function makeActivity({ now = () => performance.now() }: { now?: () => number } = {}): Activity {
  const startedAt = now();
  const latest = new Map<Signal, { at: number; by: string | undefined }>();
  const listeners = new Set<(signal: Signal, source: 'person' | 'work') => void>();

  return {
    now,
    record(signal, by, ageMs = 0) {
      const at = now() - ageMs;
      if (at < (latest.get(signal)?.at ?? Number.NEGATIVE_INFINITY)) return;
      latest.set(signal, { at, by });
      for (const listener of listeners) listener(signal, signalSources[signal]);
    },
    report() {
      const at = now();
      // Rounded, because ages are sent with every report and fractions of milliseconds mean nothing.
      const age = (since: number) => Math.max(0, Math.round(at - since));
      return {
        agentAgeMs: age(startedAt),
        signals: [...latest].map(([signal, seen]) => ({
          signal,
          ageMs: age(seen.at),
          ...(seen.by !== undefined && { by: plain(seen.by) }),
        })),
      };
    },
    latestAgeMs() {
      if (latest.size === 0) return null;
      return Math.max(0, now() - Math.max(...[...latest.values()].map(({ at }) => at)));
    },
    observe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

/** Process names may contain anything; reports may not. */
const plain = (name: string) =>
  [...name.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/gu, '?')].slice(0, maxNameLength / 2).join('');
