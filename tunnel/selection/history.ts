import type { TunnelError } from '../errors.ts';
import type { Path, PathKind } from '../pipe/path.ts';

/** What was known of a path when a choice was made; milliseconds. */
export interface PathMeasure {
  kind: PathKind;
  via: string;
  /** From client to agent and back; null when it could not be had. */
  rttMs: number | null;
  /** Of a relay: from the client to the satellite, and from the agent to it; null while it is not known. */
  clientMs?: number | null;
  agentMs?: number | null;
  /** Why it could not be had. */
  error?: string;
}

/** One choice or change of a session's path. */
export interface PathChange {
  /** ISO 8601. */
  at: string;
  /**
   * `opened`: it began here. `moved`: by choice. `lost`: it broke. `resumed`: it goes on here. `unavailable`: it
   * would have been tried, and cannot be had.
   */
  what: 'opened' | 'moved' | 'lost' | 'resumed' | 'unavailable';
  kind: PathKind;
  via: string;
  /** `faster`, `direct`, `wanted`, `nearest`, `first`; a TunnelError's code for what broke or cannot be had. */
  reason: string;
  /** For a person, without a full stop. */
  text: string;
  measured: PathMeasure[];
}

export interface History {
  readonly all: readonly PathChange[];
  add(change: Omit<PathChange, 'at'>): void;
}

/** A session of weeks on a bad line must not grow. */
const maxEntries = 200;

export function makeHistory(
  onChange?: (change: PathChange) => void,
  now: () => Date = () => new Date(),
): History {
  const all: PathChange[] = [];
  return {
    all,
    add(change) {
      const measured = change.measured.map(({ rttMs, clientMs, agentMs, ...one }) => ({
        ...one,
        rttMs: rounded(rttMs),
        ...(clientMs !== undefined && { clientMs: rounded(clientMs) }),
        ...(agentMs !== undefined && { agentMs: rounded(agentMs) }),
      }));
      const dated = { at: now().toISOString(), ...change, measured };
      all.push(dated);
      if (all.length > maxEntries) all.shift();
      onChange?.(dated);
    },
  };
}

/** It broke, and why. */
export function lostChange(path: Path, reason: TunnelError): Omit<PathChange, 'at'> {
  const { kind, via } = path;
  return { what: 'lost', kind, via, reason: reason.code, text: reason.message, measured: [] };
}

/** It goes on over a route, after so many milliseconds without a path. */
export function resumedChange(
  { kind, via }: { kind: PathKind; via: string },
  afterMs: number,
  measured: PathMeasure[],
): Omit<PathChange, 'at'> {
  const text = `the first that answered, after ${(afterMs / 1000).toFixed(1)} s without a path`;
  return { what: 'resumed', kind, via, reason: 'first', text, measured };
}

const rounded = (value: number | null) => (value === null ? null : Math.round(value * 100) / 100);

const ms = (value: number) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

/** A measurement for a person: `relay https://eu.example.com 24 ms (8.2 + 16 ms)`. */
function describeMeasure({ kind, via, rttMs, clientMs, agentMs, error }: PathMeasure): string {
  if (rttMs === null) return `${kind} ${via}: ${error ?? 'not reached'}`;
  const legs =
    clientMs == null ? '' : agentMs == null ? ' (to the satellite)' : ` (${ms(clientMs)} + ${ms(agentMs)})`;
  return `${kind} ${via} ${ms(rttMs)}${legs}`;
}

/** A change for a person, one line. */
export function describeChange({ what, kind, via, text, measured }: PathChange): string {
  const known = measured.length > 0 ? ` [${measured.map(describeMeasure).join('; ')}]` : '';
  return `path ${what}: ${kind} ${via}: ${text}${known}`;
}
