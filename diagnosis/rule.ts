import type { IncidentCause } from '@cde/api/diagnosis-values.ts';
import type { Evidence } from './evidence.ts';
import type { Spell } from './spells.ts';

export interface Verdict {
  /** From 0 to 1. */
  confidence: number;
  /** A clause that follows a colon, without a full stop: `this machine slept for 12 s`. */
  because: string;
  /** What was observed, each as a sentence. */
  evidence: string[];
}

/**
 * How sure a rule is. `likely` is also for what others could still contradict, whose reports have not arrived. What is below
 * `named` is not named: the cause stays unknown.
 */
export const sure = { certain: 0.95, strong: 0.85, likely: 0.7, named: 0.6, weak: 0.4 } as const;

/** Knows one cause. */
export interface Rule {
  cause: Exclude<IncidentCause, 'unknown'>;
  /** What speaks for this cause; null if nothing does. */
  judge(spell: Spell, evidence: Evidence): Verdict | null;
  /** Why it was not this cause, as a sentence; null if that is not known. */
  exclude?(spell: Spell, evidence: Evidence): string | null;
}

/** `40 s`, `3 min`, `2 h 10 min`. */
export function span(ms: number): string {
  if (ms < 10_000) return `${(ms / 1000).toFixed(ms < 9_950 ? 1 : 0).replace(/\.0$/, '')} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const rest = minutes % 60;
  return `${Math.floor(minutes / 60)} h${rest ? ` ${rest} min` : ''}`;
}

/** A round trip: `24 ms`, `1.4 s`. */
export const trip = (ms: number): string =>
  ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
