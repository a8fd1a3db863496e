import { type DailySchedule, type Signal, signalSources } from '@cde/api/activity.ts';
import {
  decide,
  type IdlePolicy,
  type Observations,
  scheduledStartLeaseMs,
} from '@cde/server/idle/policy.ts';
import { type Holidays, makeAfterHoursCalendar, nextStart } from '@cde/server/idle/schedule.ts';
import type { Kind } from './days.ts';
import type { Policy } from './simulate.ts';

const minute = 60_000;
const hour = 60 * minute;

const isSignal = (kind: Kind): kind is Signal => Object.hasOwn(signalSources, kind);
const isPerson = (kind: Kind) => isSignal(kind) && signalSources[kind] === 'person';

/** Deliberate faults in our policy, to test that the benchmark detects them. */
export interface Broken {
  ignores?: Signal;
  takesSilenceForIdleness?: boolean;
  /** The daily stop ignores activity. */
  stopsOnTheHour?: boolean;
}

/** Ours: the real policy code. Developers with a schedule let the workspace idle for longer during the day. */
export function ours(schedule: DailySchedule | null, broken: Broken = {}): Policy {
  const holidays: Holidays = new Set();
  const afterHours = schedule && makeAfterHoursCalendar(schedule, holidays);
  const policy: IdlePolicy = {
    stopAfterIdleMs: (schedule ? 60 : 30) * minute,
    maxRunMs: null,
    neverStop: null,
    schedule: afterHours,
  };
  let observed: Observations & { latest: Partial<Record<Signal, { at: number }>> };
  const onTheHour = () =>
    (broken.stopsOnTheHour && afterHours?.at(observed.startedAt + minute)?.from) || Number.POSITIVE_INFINITY;
  return {
    start(at, by) {
      const lease = { id: 'schedule', expiresAt: at + scheduledStartLeaseMs, by: 'schedule' };
      observed = {
        startedAt: at,
        latest: {},
        leases: by === 'schedule' ? [lease] : [],
        reportedUntil: at,
      };
    },
    see({ kind, to }) {
      if (!isSignal(kind) || kind === broken.ignores) return;
      if ((observed.latest[kind]?.at ?? 0) < to) observed.latest[kind] = { at: to };
    },
    lease({ from, to }) {
      const valid = observed.leases.filter(({ expiresAt }) => expiresAt > from);
      observed.leases = [...valid, { id: 'lease', expiresAt: to, by: 'agent' }];
    },
    nextStop(now) {
      const decision = decide(policy, { ...observed, reportedUntil: now }, now);
      if (decision.kind === 'stop') return now;
      const stopsAt = decision.kind === 'awake' ? decision.stopsAt : null;
      return stopsAt && Math.min(stopsAt, Math.max(onTheHour(), now));
    },
    stops(at, reportedUntil) {
      const known = broken.takesSilenceForIdleness ? at : reportedUntil;
      return at >= onTheHour() || decide(policy, { ...observed, reportedUntil: known }, at).kind === 'stop';
    },
    nextStart: (after) => schedule && nextStart(schedule, holidays, after),
  };
}

/** A policy with one timer that certain observations reset. */
function timer(afterMs: number, counts: (kind: Kind) => boolean, ttlMs = 0): Policy {
  let latest = 0;
  let startedAt = 0;
  return {
    start(at) {
      startedAt = at;
      latest = at;
    },
    see({ kind, to }) {
      if (counts(kind) && to > latest) latest = to;
    },
    lease() {},
    nextStop: () => Math.max(startedAt + ttlMs, latest + afterMs),
    stops: () => true,
    nextStart: () => null,
  };
}

/** Coder's rules: 8 hours from the start, and an hour more for as long as a connection is open. */
export const connections = () => timer(hour, (kind) => kind === 'connection', 8 * hour);
/** Daytona's: 15 minutes after the last API call. We count input by a person as calls too, in its favor. */
export const apiCalls = () => timer(15 * minute, (kind) => kind === 'tool-call' || isPerson(kind));
/** Codespaces': 30 minutes after the last input. */
export const inputOnly = () => timer(30 * minute, isPerson);
