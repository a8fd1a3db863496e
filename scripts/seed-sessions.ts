import type { ClientEvent, ClientWindow, postRecording } from '@cde/api/diagnosis.ts';
import type { z } from 'zod';

type Recording = z.input<NonNullable<typeof postRecording.body>>;

const minuteMs = 60_000;
const windowMs = 10_000;
/** What one request can carry. */
const maxWindows = 400;
const lengthMs = 180 * minuteMs;
const asleep = { from: 71.5 * minuteMs, to: 70 * minuteMs };

/** The same numbers each time, so that a second run changes nothing. */
function makeRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 16_807) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

/**
 * Three hours of a session until now, in batches: a lossy network, a sleep, a restart of the satellite, a slow spell without a
 * known cause, and a direct path in the last quarter of an hour.
 */
export function seedSession(id: string, satelliteUrl: string): Recording[] {
  const relay = { kind: 'relay', via: satelliteUrl } as const;
  const direct = { kind: 'direct-udp', via: '203.0.113.9:41022' } as const;
  const random = makeRandom(1 + Number.parseInt(id.slice(-6), 16));
  const within = (agoMs: number, from: number, to: number) =>
    agoMs <= from * minuteMs && agoMs > to * minuteMs;
  const leg = (p50: number, unanswered = 0) => ({
    ...{ p50, p95: p50 * (1.2 + random() / 2), max: p50 * (1.8 + random() * 2), count: 10, unanswered },
  });

  function windowAt(agoMs: number): ClientWindow {
    const isDirect = agoMs <= 15 * minuteMs;
    const isLossy = within(agoMs, 103, 98);
    const near = 9 + random() * 4 + (isLossy ? 260 + random() * 200 : 0);
    const far = 13 + random() * 3;
    const inWorkspace = within(agoMs, 22, 19) ? 500 + random() * 200 : 0;
    return {
      ...{ agoMs, ms: windowMs, path: isDirect ? direct : relay, bytes: Math.round(random() * 60_000) },
      toSatellite: isDirect ? null : leg(near),
      satelliteToAgent: isDirect ? null : leg(far),
      toAgent: leg((isDirect ? 7 : near + far) + inWorkspace, isLossy && random() < 0.5 ? 2 : 0),
      host: { loopDelayMs: 2, cpuWaitPercent: 1, throttledPercent: null, memoryPercent: 41 },
    };
  }

  const ages = Array.from({ length: lengthMs / windowMs }, (_, index) => lengthMs - index * windowMs);
  const windows = ages
    .filter((agoMs) => agoMs > asleep.from || agoMs <= asleep.to)
    .map((agoMs) => windowAt(agoMs));
  const restart = 40 * minuteMs;
  const events: ClientEvent[] = [
    { kind: 'opened', agoMs: lengthMs, path: relay },
    { kind: 'slept', agoMs: asleep.to, ms: 90_000 },
    { kind: 'lost', agoMs: asleep.to - 1_000, path: relay, reason: 'satellite-lost', silentMs: 91_000 },
    { kind: 'resumed', agoMs: asleep.to - 3_000, path: relay },
    { kind: 'lost', agoMs: restart, path: relay, reason: 'satellite-restarted', silentMs: 0 },
    { kind: 'resumed', agoMs: restart - 6_500, path: relay },
    { kind: 'moved', agoMs: 15 * minuteMs, path: direct },
  ];
  const common = {
    ...{ id, startedAgoMs: lengthMs, client: { version: '0.1.0', platform: 'linux' } },
  };
  const parts = Math.ceil(windows.length / maxWindows);
  return Array.from({ length: parts }, (_, part) => ({
    ...common,
    batch: part + 1,
    windows: windows.slice(part * maxWindows, (part + 1) * maxWindows),
    // The last batch has all of them: they are explained with what was stored before.
    events: part === parts - 1 ? events : [],
  }));
}
