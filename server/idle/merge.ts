import { type AgentActivity, type Signal, signalSources } from '@cde/api/activity.ts';
import type { Stretch } from '../database/idle-schema.ts';
import type { ActivityRow } from './activity-store.ts';

/** Two occurrences further apart than this are two stretches in the timeline. */
const stretchGapMs = 10 * 60_000;
/** Reports of one occurrence arrive with different delays, so a smaller difference is ignored. */
const sameOccurrenceMs = 2_000;

interface Merged {
  agentStartedAt: number;
  signals: Partial<Record<Signal, Stretch>>;
  personAt: number | null;
  /** Stretches that have ended, for the timeline. */
  ended: ({ signal: Signal } & Stretch)[];
  /** Whether anything occurred that was not known. */
  isNew: boolean;
}

/** Adds what an agent reports to what is known. `now`: when the report arrived. */
export function mergeReport(
  known: Pick<ActivityRow, 'signals' | 'agentStartedAt' | 'personAt'>,
  report: AgentActivity,
  now: number,
): Merged {
  const startedAt = now - report.agentAgeMs;
  const sameAgent =
    known.agentStartedAt !== null && Math.abs(startedAt - known.agentStartedAt) < 5 * sameOccurrenceMs;
  const merged: Merged = {
    agentStartedAt: sameAgent ? known.agentStartedAt! : startedAt,
    signals: { ...known.signals },
    personAt: known.personAt,
    ended: [],
    isNew: !sameAgent,
  };
  for (const { signal, ageMs, by } of report.signals) {
    const at = now - ageMs;
    const before = merged.signals[signal];
    if (before && at <= before.at + sameOccurrenceMs) continue;
    merged.isNew = true;
    const continues = before !== undefined && at - before.at <= stretchGapMs && before.by === by;
    if (before && !continues) merged.ended.push({ signal, ...before });
    merged.signals[signal] = {
      since: continues ? before.since : at,
      at,
      ...(by !== undefined && { by }),
    };
    if (signalSources[signal] === 'person') merged.personAt = Math.max(merged.personAt ?? 0, at);
  }
  return merged;
}
