import type { HostSample, LegSample } from '@cde/api/diagnosis.ts';
import { windowMs } from '@cde/api/diagnosis-values.ts';
import {
  type Evidence,
  nothingKnown,
  type SessionEvent,
  type SessionWindow,
  type Surroundings,
  type WorkspaceWindow,
} from './evidence.ts';

/** Recordings written down by hand begin here. */
export const start = Date.parse('2026-11-30T09:00:00Z');
/** Moments in seconds since the start. */
export const second = (count: number): number => start + count * 1000;

export const tokyo = { kind: 'relay', via: 'https://tokyo.example.com' } as const;
export const embedded = { kind: 'relay', via: 'https://cde.example.com' } as const;
const names: Record<string, string> = { [tokyo.via]: 'tokyo', [embedded.via]: 'embedded' };

export const leg = (p50: number, changes: Partial<LegSample> = {}): LegSample => ({
  p50,
  p95: p50 * 1.2,
  max: p50 * 1.5,
  count: 10,
  unanswered: 0,
  ...changes,
});

export const idle: HostSample = {
  loopDelayMs: 1,
  cpuWaitPercent: 0.5,
  throttledPercent: 0,
  memoryPercent: 40,
};

export const sessionWindow = (seconds: number, changes: Partial<SessionWindow> = {}): SessionWindow => ({
  at: second(seconds),
  ms: windowMs,
  path: tokyo,
  toSatellite: leg(10),
  satelliteToAgent: leg(14),
  toAgent: leg(24),
  bytes: 2_000,
  host: idle,
  ...changes,
});

export const workspaceWindow = (
  seconds: number,
  changes: Partial<WorkspaceWindow> = {},
): WorkspaceWindow => ({
  at: second(seconds),
  ms: windowMs,
  outOfMemoryKills: 0,
  host: idle,
  ...changes,
});

type Changes<T> = (seconds: number) => Partial<T> | null;

/** A session of ten minutes in which nothing happens except what the arguments say. */
export function evidenceOf(options: {
  /** By the second at which a window begins; null: there is none. */
  windows?: Changes<SessionWindow>;
  workspace?: Changes<WorkspaceWindow>;
  events?: SessionEvent[];
  around?: Partial<Surroundings>;
}): Evidence {
  const begins = Array.from({ length: 60 }, (_, index) => index * 10);
  const place = <T>(make: (seconds: number, changes: Partial<T>) => T, changes: Changes<T> | undefined) =>
    begins.flatMap((seconds) => {
      const change = changes ? changes(seconds) : {};
      return change === null ? [] : [make(seconds, change)];
    });
  return {
    ...nothingKnown,
    nameOf: (url) => names[url] ?? url,
    workspace: place(workspaceWindow, options.workspace),
    ...options.around,
    session: {
      startedAt: start,
      knownUntil: second(600),
      windows: place(sessionWindow, options.windows),
      events: [{ kind: 'opened', at: start, path: tokyo }, ...(options.events ?? [])],
    },
  };
}

/** True for windows from this second to that one. */
export const between = (from: number, to: number) => (seconds: number) => seconds >= from && seconds < to;

/** A path that was lost at one second, noticed after a silence, and found again at another. */
export const gap = (options: {
  from: number;
  to: number;
  silent?: number;
  reason?: string;
  path?: SessionWindow['path'];
  resumedOn?: NonNullable<SessionWindow['path']>;
}): SessionEvent[] => {
  const { from, to, silent = 0, reason = 'satellite-lost', path = tokyo, resumedOn = tokyo } = options;
  return [
    { kind: 'lost', at: second(from + silent), path: path!, reason, silentMs: silent * 1000 },
    { kind: 'resumed', at: second(to), path: resumedOn },
  ];
};
