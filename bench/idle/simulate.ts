import type { Observed, Span, Year } from './days.ts';

/** A policy under test. One object per workspace and run. */
export interface Policy {
  /** The workspace has started, for a developer or by the policy's own schedule. */
  start(at: number, by: 'developer' | 'schedule'): void;
  /** Something is observed until `to`. Policies ignore the kinds that they do not count. */
  see(observed: Observed): void;
  lease(span: Span): void;
  /** The next moment, from now on, at which it would stop the workspace if nothing more were observed; null: never. */
  nextStop(now: number): number | null;
  /** Whether it stops the workspace at that moment, although nothing has been reported since `reportedUntil`. */
  stops(at: number, reportedUntil: number): boolean;
  /** When it starts a stopped workspace by itself; null: never. */
  nextStart(after: number): number | null;
}

export interface Result {
  /** Stops while somebody worked or something ran. */
  wrongStops: number;
  stops: number;
  /** Idle time that the workspace would have spent running if it were never stopped, in ms. */
  idleMs: number;
  /** The part of it for which the workspace was stopped, in ms. */
  reclaimedMs: number;
}

/** How long a developer takes to start a workspace that was stopped under their hands. */
const restartMs = 2 * 60_000;
/** From the end of an outage to the first complete report. */
const reportMs = 60_000;

/** Runs a policy through a workspace's year. Time jumps from one event to the next. */
export function simulate(year: Year, policy: Policy): Result {
  const { observed, leases, presences, busy } = year;
  const result: Result = { wrongStops: 0, stops: 0, idleMs: 0, reclaimedMs: 0 };
  if (presences.length === 0) return result;
  result.idleMs = year.to - year.from - overlap(busy, year.from, year.to);

  // Whatever happens then is not known before the first report afterwards.
  const unreported = year.outages.map(({ from, to }) => ({ from, to: to + reportMs }));
  let nextObserved = 0;
  let nextLease = 0;
  let now = year.from;
  policy.start(now, 'developer');
  /** When the policy learns of something: at once, or after the outage during which it happens. */
  const visibleAt = (at: number) => spanAt(unreported, at)?.to ?? at;
  /** Shows the policy everything that has begun by `until`. */
  const advance = (until: number) => {
    for (; nextObserved < observed.length && observed[nextObserved]!.from <= until; nextObserved += 1)
      policy.see(observed[nextObserved]!);
    for (; nextLease < leases.length && leases[nextLease]!.from <= until; nextLease += 1)
      policy.lease(leases[nextLease]!);
    now = until;
  };
  advance(now);

  for (;;) {
    const stopAt = policy.nextStop(now);
    const next = visibleAt(
      Math.min(
        observed[nextObserved]?.from ?? Number.POSITIVE_INFINITY,
        leases[nextLease]?.from ?? Number.POSITIVE_INFINITY,
      ),
    );
    if (stopAt === null || stopAt > next) {
      if (next === Number.POSITIVE_INFINITY) return result;
      advance(next);
      continue;
    }
    const at = Math.max(stopAt, now);
    if (at >= year.to) return result;
    const outage = spanAt(unreported, at);
    if (!policy.stops(at, outage ? outage.from : at)) {
      // Nothing is known: it is asked again once the outage is over and the agent has reported.
      advance(outage!.to);
      continue;
    }
    result.stops += 1;
    if (spanAt(busy, at)) result.wrongStops += 1;
    const startAt = spanAt(presences, at) ? at + restartMs : nextFrom(presences, at);
    const scheduledAt = policy.nextStart(at) ?? year.to;
    const until = Math.min(startAt ?? year.to, scheduledAt, year.to);
    result.reclaimedMs += until - at - overlap(busy, at, until);
    if (until >= year.to) return result;
    // Connections and programs end with the stop. What continues is what the developer does.
    while (nextObserved < observed.length && observed[nextObserved]!.from < until) nextObserved += 1;
    while (nextLease < leases.length && leases[nextLease]!.from < until) nextLease += 1;
    policy.start(until, until === scheduledAt ? 'schedule' : 'developer');
    advance(until);
  }
}

/** The span that contains a moment. `spans` is sorted and without overlaps. */
function spanAt(spans: readonly Span[], at: number): Span | null {
  const span = spans[lastBefore(spans, at)];
  return span && at < span.to ? span : null;
}

function nextFrom(spans: readonly Span[], at: number): number | null {
  return spans[lastBefore(spans, at) + 1]?.from ?? null;
}

/** The index of the last span that begins at or before a moment, or -1. */
function lastBefore(spans: readonly Span[], at: number): number {
  let low = 0;
  let high = spans.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[middle]!.from <= at) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function overlap(spans: readonly Span[], from: number, to: number): number {
  let sum = 0;
  for (let index = Math.max(0, lastBefore(spans, from)); index < spans.length; index += 1) {
    const span = spans[index]!;
    if (span.from >= to) break;
    sum += Math.max(0, Math.min(span.to, to) - Math.max(span.from, from));
  }
  return sum;
}
