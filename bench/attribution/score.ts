import { type IncidentCause, incidentCauses, type Segment } from '@cde/api/diagnosis-values.ts';
import type { Evidence } from '@cde/diagnosis/evidence.ts';
import type { Case, Cause } from './cases.ts';
import { makeChance } from './chance.ts';

/** What the API said of an incident, and when. */
export interface Sighting {
  seenAt: number;
  from: number;
  /** Null: it continued. */
  to: number | null;
  kind: string;
  cause: string;
  segment: string;
  confidence: number;
  summary: string;
}

export type RecordedEvidence = Omit<Evidence, 'nameOf'> & { names: Record<string, string> };

export interface Played {
  case: Case;
  injected: { cause: Cause; from: number; to: number }[];
  begunAt: number;
  /** When the session had been used for long enough. */
  readyAt: number;
  endedAt: number;
  sightings: Sighting[];
  /** The incidents when everybody had reported. */
  finals: Sighting[];
  /** Milliseconds from a key to its echo, the worst before and during the faults. */
  echo: { beforeMs: number; duringMs: number };
  /** What the engine was given of each session, with the names of the satellites by URL. */
  evidence: RecordedEvidence[];
}

/** An engine that is this sure of a wrong cause blames somebody who is innocent. */
const highConfidence = 0.8;
/** An incident is noticed a moment before or after what causes it was recorded. */
const slackMs = 15_000;

export interface Judged {
  id: string;
  truth: Cause;
  /** The cause that was named; `none`: no incident was reported. */
  named: IncidentCause | 'none';
  isSegmentRight: boolean;
  isCauseRight: boolean;
  falseBlame: Sighting[];
  secondsToName: number | null;
}

const segmentOf = (cause: string): Segment | 'none' => incidentCauses[cause as IncidentCause] ?? 'none';

/**
 * Of the incidents that overlap the fault, the longest one counts. The second of two faults may be named instead, if both were in
 * effect. A proxy is recognized by its third cut, so there the last incident counts.
 */
export function judge(played: Played, rename: (cause: string) => string = (cause) => cause): Judged {
  const { case: one, injected } = played;
  const truth = one.title as Cause;
  const truths = new Set<string>(injected.map(({ cause }) => cause));
  const main = injected.find(({ cause }) => cause === truth)!;
  const overlap = ({ from, to }: Sighting, other: { from: number; to: number }) =>
    Math.min(to ?? Number.POSITIVE_INFINITY, other.to + slackMs) - Math.max(from, other.from - slackMs);
  const finals = played.finals.map((each) => ({ ...each, cause: rename(each.cause) }));
  const sightings = played.sightings.map((each) => ({ ...each, cause: rename(each.cause) }));
  // What happens to a machine that sleeps is noticed when it wakes.
  const faults = {
    from: Math.min(...injected.map(({ from }) => from)),
    to: Math.max(...injected.map(({ to }) => to)),
  };
  const about = finals.filter((each) => overlap(each, faults) >= 0);
  const weight = (each: Sighting) =>
    truth === 'proxy-interference' ? each.from : (each.to ?? played.endedAt) - each.from;
  // A named incident of the fault itself counts before one of the fault beside it.
  const ordered = [...about].sort(
    (one, other) =>
      Number(other.cause === truth) - Number(one.cause === truth) || weight(other) - weight(one),
  );
  const chosen =
    truths.size > 1 ? ordered[0] : [...about].sort((one, other) => weight(other) - weight(one))[0];
  const named = (chosen?.cause ?? 'none') as Judged['named'];
  const isAllowed = (cause: string) => truths.has(cause);
  const isCauseRight = isAllowed(named);
  const first = sightings.find(({ cause, from }) => isAllowed(cause) && from >= main.from - slackMs);
  return {
    id: one.id,
    truth,
    named,
    isCauseRight,
    isSegmentRight: [...truths].some((cause) => segmentOf(cause) === segmentOf(named)),
    falseBlame: [...sightings, ...finals].filter(
      ({ cause, confidence }) => cause !== 'unknown' && !isAllowed(cause) && confidence >= highConfidence,
    ),
    secondsToName: isCauseRight && first ? Math.max(0, (first.seenAt - main.to) / 1000) : null,
  };
}

export interface Score {
  seed: number;
  cases: number;
  segmentAccuracy: number;
  causeAccuracy: number;
  falseBlame: number;
  p95SecondsToName: number | null;
  /** How often each cause was named, by the injected one. */
  confusion: Record<string, Record<string, number>>;
}

export function score(seed: number, judged: readonly Judged[]): Score {
  const share = (count: number) =>
    judged.length === 0 ? 0 : Math.round((1000 * count) / judged.length) / 1000;
  const times = judged.flatMap(({ secondsToName }) => secondsToName ?? []).sort((one, other) => one - other);
  const confusion: Score['confusion'] = {};
  for (const { truth, named } of judged) {
    confusion[truth] ??= {};
    confusion[truth][named] = (confusion[truth][named] ?? 0) + 1;
  }
  return {
    seed,
    cases: judged.length,
    segmentAccuracy: share(judged.filter((each) => each.isSegmentRight).length),
    causeAccuracy: share(judged.filter((each) => each.isCauseRight).length),
    falseBlame: judged.filter((each) => each.falseBlame.length > 0).length,
    p95SecondsToName:
      times.length === 0
        ? null
        : Math.round(10 * times[Math.min(times.length - 1, Math.floor(times.length * 0.95))]!) / 10,
    confusion,
  };
}

/** The same engine with its causes shuffled: each name stands for another one. */
export function shuffled(seed: number): (cause: string) => string {
  const causes = Object.keys(incidentCauses).filter((cause) => cause !== 'unknown');
  const chance = makeChance(seed);
  // A cycle through all of them leaves none in its place.
  const order = chance.shuffle(causes);
  const next = new Map(order.map((cause, at) => [cause, order[(at + 1) % order.length]!]));
  return (cause) => next.get(cause) ?? cause;
}
