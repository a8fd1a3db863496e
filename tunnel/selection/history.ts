import type { TunnelError } from '../errors.ts';
import type { Path, PathKind } from '../pipe/path.ts';

/** A measured path; times in milliseconds. */
export interface PathMeasure {
  kind: PathKind;
  via: string;
  /** Round trip from client to agent; null if the path is unavailable. */
  rttMs: number | null;
  /** Of a relay: round trips of client and agent to the satellite; null if unknown. */
  clientMs?: number | null;
  agentMs?: number | null;
  /** Why it is unavailable. */
  error?: string;
}

/** A change of a session's path, or the reason there was none. */
export interface PathChange {
  /** ISO 8601. */
  at: string;
  /**
   * `opened`: the session opened here. `moved`: by choice. `lost`: the path broke. `resumed`: the session continues
   * here. `unavailable`: a path of this kind was looked for, and is not available.
   */
  what: 'opened' | 'moved' | 'lost' | 'resumed' | 'unavailable';
  kind: PathKind;
  via: string;
  /** `faster`, `direct`, `tcp`, `wanted`, `nearest`, `first`, or a TunnelError code. */
  reason: string;
  /** Human-readable, without a full stop. */
  text: string;
  measured: PathMeasure[];
}

export interface History {
  readonly all: readonly PathChange[];
  add(change: Omit<PathChange, 'at'>): void;
}

/** Bounds the memory of a session that lasts for weeks on a bad network. */
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

export function lostChange(path: Path, reason: TunnelError): Omit<PathChange, 'at'> {
  const { kind, via } = path;
  return { what: 'lost', kind, via, reason: reason.code, text: reason.message, measured: [] };
}

/** The session continues over this path, after `afterMs` without one. */
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

/** For example `relay https://eu.example.com 24 ms (8.2 + 16 ms)`. */
function describeMeasure({ kind, via, rttMs, clientMs, agentMs, error }: PathMeasure): string {
  if (rttMs === null) return `${kind} ${via}: ${error ?? 'not reached'}`;
  const legs =
    clientMs == null ? '' : agentMs == null ? ' (to the satellite)' : ` (${ms(clientMs)} + ${ms(agentMs)})`;
  return `${kind} ${via} ${ms(rttMs)}${legs}`;
}

/** Formats a change as one line. */
export function describeChange({ what, kind, via, text, measured }: PathChange): string {
  const known = measured.length > 0 ? ` [${measured.map(describeMeasure).join('; ')}]` : '';
  return `path ${what}: ${kind} ${via}: ${text}${known}`;
}
