import type { ClientEvent, ClientWindow, LegSample } from '@cde/api/diagnosis.ts';
import { windowMs } from '@cde/api/diagnosis-values.ts';
import { outgoingAddresses } from '../network/ways-out.ts';
import type { PathChange } from '../selection/history.ts';
import type { Session } from '../session/session.ts';
import { type HostSampler, makeHostSampler, waitedMs } from './host-sampler.ts';
import { makeLegSamples } from './leg-samples.ts';

/** A moment on the wall clock of this machine instead of an age. */
type Stamped<T> = T extends { agoMs: number } ? Omit<T, 'agoMs'> & { at: number } : never;

export interface Recorded {
  windows: Stamped<ClientWindow>[];
  events: Stamped<ClientEvent>[];
}

/** Records what its client sees of a session: legs in windows of ten seconds while it is used, and what happens to it. */
export interface Recorder {
  /** Pass every change of the session's path. */
  changed(change: PathChange): void;
  /** Pass whether the server answered a request. */
  serverAnswered(answered: boolean): void;
  /** Takes out what was recorded since the last call; null while that is not worth a report. */
  take(): Recorded | null;
  stop(): void;
}

export interface RecorderTimes {
  /** Wall clock, in Unix milliseconds. */
  wall(): number;
  /** Milliseconds that pass while a program could run. */
  running(): number;
  /** Milliseconds since the machine started, in which sleep counts. */
  awake(): number;
}

const tickMs = 1_000;
/** A session into which nothing was written for this long is not probed: nobody waits for it. */
const usedForMs = 30_000;
/** A probe without an answer for this long is a stall. */
const stallMs = 1_500;
/** The clocks of a sleeping machine differ by more, and a timer is later. */
const sleptMs = 2_000;
/** A window whose round trips are this much longer than the best ones of its path is reported at once: it may be noticeable. */
const slowerByMs = 80;
/** An hour of windows, and more events than a bad day has. */
const maxWindows = 360;
const maxEvents = 200;

const systemTimes: RecorderTimes = {
  wall: Date.now,
  running: () => performance.now(),
  // Linux and macOS count sleep, at a resolution of 10 ms.
  awake: () => process.getBuiltinModule('node:os').uptime() * 1000,
};

type Recordable = Pick<Session, 'path' | 'roundTrip' | 'bytes' | 'received' | 'writes' | 'closed'>;

/** Starts recording. `onNews` is called when something happened that a person may ask about. */
export async function recordSession(
  session: Recordable,
  options: {
    onNews: () => void;
    times?: RecorderTimes;
    /** Calls back every second, in tests when they say. */
    every?: (ms: number, tick: () => void) => () => void;
    host?: HostSampler;
    addresses?: () => string;
    waited?: () => Promise<number | null>;
  },
): Promise<Recorder> {
  const { onNews, times = systemTimes, every = everyMs, waited = waitedMs } = options;
  const addresses = options.addresses ?? (() => outgoingAddresses().sort().join());
  const host = options.host ?? (await makeHostSampler());
  const legs = {
    toSatellite: makeLegSamples(),
    satelliteToAgent: makeLegSamples(),
    toAgent: makeLegSamples(),
  };
  let recorded: Recorded = { windows: [], events: [] };
  let network = addresses();
  let last = { ...read(), received: session.received, writes: session.writes };
  let usedAt = last.wall;
  let heardAt = last.wall;
  let window = { at: last.wall, bytes: session.bytes };
  let hasPath = true;
  /** The probe that waits for its answer. */
  let probe: { at: number; epoch: number } | undefined;
  /** Changes with the path: answers to earlier probes say nothing about it. */
  let epoch = 0;
  let noServerSince: number | undefined;
  let waitedBefore = await waited();
  /** The best median so far, by path. */
  const best = new Map<string, number>();

  function read() {
    return { wall: times.wall(), running: times.running(), awake: times.awake() };
  }

  function add(event: Stamped<ClientEvent>): void {
    recorded.events.push(event);
    if (recorded.events.length > maxEvents) recorded.events.shift();
  }

  function tick(): void {
    const now = { ...read(), received: session.received, writes: session.writes };
    const gapMs = now.awake - last.awake;
    const lateMs = now.running - last.running - tickMs;
    host.late(Math.min(lateMs, sleptMs));
    if (gapMs - (now.running - last.running) > sleptMs || lateMs > sleptMs)
      void noteGap(Math.max(gapMs, now.running - last.running), now.wall, lateMs);
    if (now.writes !== last.writes) usedAt = now.wall;
    // What was sent says nothing: a person types on while nothing arrives.
    if (now.received !== last.received) heardAt = now.wall;
    compareAddresses(now.wall);
    const isUsed = now.wall - usedAt < usedForMs;
    last = now;
    if (isUsed && hasPath) sendProbe(now.wall);
    if (now.wall - window.at >= windowMs) void closeWindow(now.wall, isUsed);
  }

  function compareAddresses(at: number): void {
    const now = addresses();
    if (now === network) return;
    network = now;
    // Without any address it is offline, and changes when it has one again.
    if (now !== '') add({ kind: 'network-changed', at });
  }

  /** A pause in which no timer ran: the machine slept, unless the process waited for a CPU meanwhile. */
  async function noteGap(ms: number, at: number, lateMs: number): Promise<void> {
    const before = waitedBefore;
    waitedBefore = await waited();
    const waitedFor = before === null || waitedBefore === null ? 0 : waitedBefore - before;
    if (waitedFor > ms / 2) host.late(lateMs);
    else add({ kind: 'slept', at, ms });
  }

  function sendProbe(at: number): void {
    if (probe?.epoch === epoch) {
      legs.toAgent.unanswered();
      return;
    }
    const sent = { at, epoch };
    probe = sent;
    session.roundTrip().then(
      ({ totalMs, clientMs, agentMs, agentMsIs }) => {
        if (probe === sent) probe = undefined;
        if (sent.epoch !== epoch || !hasPath) return;
        heardAt = times.wall();
        legs.toAgent.add(totalMs);
        if (clientMs !== null) legs.toSatellite.add(clientMs);
        if (agentMs !== null && agentMsIs === 'measured') legs.satelliteToAgent.add(agentMs);
        if (totalMs < stallMs) return;
        add({ kind: 'stalled', at: heardAt, path: pathOf(), ms: totalMs });
        onNews();
      },
      () => {
        if (probe === sent) probe = undefined;
      },
    );
  }

  async function closeWindow(at: number, isUsed: boolean): Promise<void> {
    const begun = window;
    window = { at, bytes: session.bytes };
    const [toSatellite, satelliteToAgent, toAgent] = [
      legs.toSatellite.take(),
      legs.satelliteToAgent.take(),
      legs.toAgent.take(),
    ];
    if (!isUsed) return;
    const sample = await host.sample();
    waitedBefore = await waited();
    recorded.windows.push({
      at: begun.at,
      ms: Math.min(at - begun.at, 6 * windowMs),
      path: hasPath ? pathOf() : null,
      toSatellite,
      satelliteToAgent,
      toAgent,
      bytes: window.bytes - begun.bytes,
      host: sample,
    });
    if (recorded.windows.length > maxWindows) recorded.windows.shift();
    if (toAgent && isSlow(toAgent)) onNews();
  }

  function isSlow({ p50, p95 }: LegSample): boolean {
    const { kind, via } = session.path;
    const key = `${kind} ${via}`;
    const usual = Math.min(best.get(key) ?? Number.POSITIVE_INFINITY, p50);
    best.set(key, usual);
    return (p50 + p95) / 2 > usual + slowerByMs;
  }

  const pathOf = () => ({ kind: session.path.kind, via: session.path.via.slice(0, 300) });
  add({ kind: 'opened', at: last.wall, path: pathOf() });
  const stopTicking = every(tickMs, tick);
  void session.closed.then(({ error }) => {
    stopTicking();
    add({ kind: 'ended', at: times.wall(), reason: error?.code ?? null });
    onNews();
  });

  return {
    changed({ what, kind, via, reason }) {
      const at = times.wall();
      const path = { kind, via: via.slice(0, 300) };
      if (what === 'unavailable') {
        if (kind === 'direct-udp') add({ kind: 'udp-failed', at, reason: codeOf(reason) });
        return;
      }
      epoch++;
      // A path can be found again before the next look.
      compareAddresses(at);
      if (what === 'lost') {
        const isUsed = at - usedAt < usedForMs;
        add({ kind: 'lost', at, path, reason: codeOf(reason), silentMs: isUsed ? at - heardAt : 0 });
        hasPath = false;
      } else if (what !== 'opened') {
        add({ kind: what, at, path });
        heardAt = at;
        hasPath = true;
        if (what === 'resumed') onNews();
      }
    },
    serverAnswered(answered) {
      const at = times.wall();
      if (!answered) noServerSince ??= at;
      else if (noServerSince !== undefined) {
        add({ kind: 'server-unreachable', at, ms: at - noServerSince });
        noServerSince = undefined;
      }
    },
    take() {
      const taken = recorded;
      const isWorthIt =
        taken.windows.length > 0 ||
        taken.events.some(
          ({ kind, ...event }) => kind !== 'opened' && !('reason' in event && event.reason === null),
        );
      if (!isWorthIt) return null;
      recorded = { windows: [], events: [] };
      return taken;
    },
    stop: stopTicking,
  };
}

/** What is no code of ours came over the network. */
const codeOf = (reason: string) => (/^[a-z][a-z0-9-]{0,59}$/.test(reason) ? reason : 'unknown');

function everyMs(ms: number, tick: () => void): () => void {
  const timer = setInterval(tick, ms).unref();
  return () => clearInterval(timer);
}
