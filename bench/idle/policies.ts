import { type Signal, signalSources } from '@cde/api/activity.ts';
import { decide, type IdlePolicy, type Observations } from '@cde/server/idle/policy.ts';
import type { Kind } from './days.ts';
import type { Policy } from './simulate.ts';

const minute = 60_000;
const hour = 60 * minute;

const isSignal = (kind: Kind): kind is Signal => Object.hasOwn(signalSources, kind);
const isPerson = (kind: Kind) => isSignal(kind) && signalSources[kind] === 'person';

/** Ours: the real policy code. The options break it on purpose, for the tests that the bench notices. */
export function ours(broken: { ignores?: Signal; takesSilenceForIdleness?: boolean } = {}): Policy {
  const policy: IdlePolicy = {
    stopAfterIdleMs: 30 * minute,
    maxRunMs: null,
    neverStop: null,
    schedule: null,
  };
  let observed: Observations & { latest: Partial<Record<Signal, { at: number }>> };
  return {
    start(at) {
      observed = { startedAt: at, latest: {}, leases: [], reportedUntil: at };
    },
    see({ kind, to }) {
      if (!isSignal(kind) || kind === broken.ignores) return;
      if ((observed.latest[kind]?.at ?? 0) < to) observed.latest[kind] = { at: to };
    },
    lease({ from, to }) {
      const valid = observed.leases.filter(({ expiresAt }) => expiresAt > from);
      observed.leases = [...valid, { id: 'lease', expiresAt: to, by: 'agent' }];
    },
    nextStop() {
      const decision = decide(policy, observed, observed.startedAt);
      return decision.kind === 'awake' ? decision.stopsAt : null;
    },
    stops(at, reportedUntil) {
      const known = broken.takesSilenceForIdleness ? at : reportedUntil;
      return decide(policy, { ...observed, reportedUntil: known }, at).kind === 'stop';
    },
  };
}

/** A policy with one timer that certain observations wind up again. */
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
  };
}

/** Coder's rules: 8 hours from the start, and an hour more for as long as a connection is open. */
export const connections = () => timer(hour, (kind) => kind === 'connection', 8 * hour);
/** Daytona's: 15 minutes after the last API call. We count input by a person as calls too, in its favor. */
export const apiCalls = () => timer(15 * minute, (kind) => kind === 'tool-call' || isPerson(kind));
/** Codespaces': 30 minutes after the last input. */
export const inputOnly = () => timer(30 * minute, isPerson);
