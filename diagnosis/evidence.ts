import type { AgentWindow, ClientEvent, ClientWindow, HostSample } from '@cde/api/diagnosis.ts';

// All moments are Unix times in milliseconds, by one clock.

type Placed<T extends { agoMs: number }> = Omit<T, 'agoMs'> & { at: number };
type EachPlaced<T> = T extends { agoMs: number } ? Placed<T> : never;

/** Ten seconds of a session; `at` is when they began. */
export type SessionWindow = Placed<ClientWindow>;
export type SessionEvent = EachPlaced<ClientEvent>;
export type WorkspaceWindow = Placed<AgentWindow>;

/** What the client saw of one session, oldest first. */
export interface Recording {
  startedAt: number;
  /** Everything until then is known. */
  knownUntil: number;
  windows: readonly SessionWindow[];
  events: readonly SessionEvent[];
}

/** A transition of the workspace that could end or interrupt a session. */
export interface BuildEvent {
  transition: 'start' | 'stop' | 'delete';
  restart: boolean;
  requestedAt: number;
  finishedAt: number | null;
  /** A username, or `cde`. */
  by: string;
  /** Why it was requested, as a clause or sentence for people; may be empty. */
  reason: string;
  /** Of a stop by a policy: which. */
  policy: string | null;
  /** Of a restart by cde: how the compute ended, as a code of the provider contract. */
  endCause: string | null;
}

export interface SatelliteEvent {
  at: number;
  satellite: string;
  kind: 'started' | 'draining';
}

export interface SatelliteWindow {
  at: number;
  ms: number;
  satellite: string;
  loopDelayMs: number;
}

/** What the rest of the system knows of the time around a session. */
export interface Surroundings {
  builds: readonly BuildEvent[];
  /** When a process of the agent registered for the first time. */
  agentStarts: readonly number[];
  workspace: readonly WorkspaceWindow[];
  satelliteEvents: readonly SatelliteEvent[];
  satellites: readonly SatelliteWindow[];
  /** The name of a satellite by the URL that clients use. */
  nameOf: (url: string) => string;
}

export const nothingKnown: Surroundings = {
  builds: [],
  agentStarts: [],
  workspace: [],
  satelliteEvents: [],
  satellites: [],
  nameOf: (url) => url,
};

export interface Evidence extends Surroundings {
  session: Recording;
}

export interface Span {
  from: number;
  to: number;
}

export const overlaps = (one: Span, other: Span): boolean => one.from <= other.to && other.from <= one.to;

export const spanOf = ({ at, ms }: { at: number; ms: number }): Span => ({ from: at, to: at + ms });

export const windowsIn = <T extends { at: number; ms: number }>(windows: readonly T[], span: Span): T[] =>
  windows.filter((window) => overlaps(spanOf(window), span));

/** Reports come a few seconds after the time that they are about. */
const uncoveredMs = 5_000;

/** True if these windows tell of the whole span, and not only of its beginning. */
export const cover = (windows: readonly { at: number; ms: number }[], span: Span): boolean =>
  windows.some((window) => window.at <= span.from + uncoveredMs) &&
  windows.some((window) => window.at + window.ms >= span.to - uncoveredMs);

/** An event loop that is this late is noticeable as a slow echo by itself. */
export const busyLoopMs = 80;
/** Of a window. A process that waits that much for a CPU answers a key some tens of milliseconds later. */
const busyWaitPercent = 25;

/** Why a machine is too busy, in words; null if it is not. */
export function busyReason(host: HostSample): string | null {
  if ((host.throttledPercent ?? 0) >= busyWaitPercent)
    return `it was held at its CPU limit for ${Math.round(host.throttledPercent!)} % of the time`;
  if ((host.cpuWaitPercent ?? 0) >= busyWaitPercent)
    return `our process waited for a CPU for ${Math.round(host.cpuWaitPercent!)} % of the time`;
  if (host.loopDelayMs >= busyLoopMs) return `our process ran ${Math.round(host.loopDelayMs)} ms late`;
  return null;
}
