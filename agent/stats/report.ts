import type { AgentActivity, IdleReply, NoActivity, Signal } from '@cde/api/activity.ts';
import { type AgentManifest, type AgentStats, postAgentStats } from '@cde/api/agent.ts';
import type { Activity } from '../activity/activity.ts';
import type { ServerClient } from '../server/client.ts';
import type { StatsCollector } from './stats.ts';

/** Changes are collected for this long, since several satellites are measured at the same time. */
const changeDelayMs = 250;
/** A report is due when the workspace stops, so that the server need not wait for one. A wrong clock must not flood it. */
const minIntervalMs = 5000;
/** While a stop is near, activity of a person is reported within this time. */
const urgentIntervalMs = 2000;
/** How close a stop has to be for that: the last warning has been shown by then. */
const urgentWithinMs = 5 * 60_000;

export interface Reporter {
  /** What the server said last about idleness, and how long ago; null if it has said nothing. */
  idle(): { reply: IdleReply; ageMs: number } | null;
  /** Reports soon, at most every two seconds. */
  reportSoon(): void;
}

/**
 * Reports a sample and the activity now and every `everyMs` until `signal` is aborted; at the moment when the workspace would
 * stop; when a person becomes active shortly before that; and soon after the satellites or their round trips change: clients
 * choose their path by them, and the first report of a new agent has none yet. A failed report is not repeated, since the
 * next one supersedes it.
 */
export function reportStats(options: {
  collector: StatsCollector;
  activity: Activity;
  /** Called before each report, to find out what the developer's processes do. */
  work?: { sample(): Promise<void> };
  client: ServerClient;
  everyMs: () => number;
  signal: AbortSignal;
  onFailure: (error: unknown) => void;
  /** Called with the current satellites, which each reply of the server names. */
  onSatellites?: (satellites: AgentManifest['satellites']) => void;
  /** Activity of a person is reported soon while this is true. */
  isUrgent?: () => boolean;
  /** Called with what each reply says about idleness. */
  onIdle?: (idle: IdleReply) => void;
  /** The current round trips, and a way to observe changes. */
  satellites?: { current: () => AgentStats['satellites']; onChange(tell: () => void): void };
  /** Monotonic milliseconds. */
  now?: () => number;
}): Reporter {
  const { signal, satellites, activity, now = () => performance.now() } = options;
  let timer: NodeJS.Timeout | undefined;
  let reporting = false;
  let reported = '';
  let startedAt = Number.NEGATIVE_INFINITY;
  /** Something has changed since the report in progress was made: report again after this time. */
  let unreportedChangeMs: number | null = null;
  let idle: { reply: IdleReply; at: number } | null = null;
  /** Signals since the latest report. */
  const changed = new Set<Signal>();
  /** Whether the server has recorded the latest report. */
  let isRecorded = false;

  /**
   * Only signals that the server does not know yet: an idle workspace would repeat the same ones for hours. All of them if the
   * server may not have recorded the report before this one.
   */
  function news(): AgentActivity | NoActivity {
    const report = activity.report();
    const signals = isRecorded ? report.signals.filter(({ signal }) => changed.has(signal)) : report.signals;
    const same = isRecorded && signals.length === 0 ? idle?.reply.revision : undefined;
    changed.clear();
    isRecorded = false;
    return same === undefined ? { ...report, signals } : { same };
  }

  /** Null: unchanged, except for the time that has passed. */
  function hear(reply: IdleReply | null | undefined, saidSame: boolean) {
    const current = reply === null && idle ? { ...idle.reply, stopsInMs: stopsInMs() } : reply;
    idle = current ? { reply: current, at: now() } : null;
    // A server that knows something else may have lost what was reported, as one that was restored from a backup has.
    isRecorded = saidSame ? reply === null : idle !== null;
    if (current) options.onIdle?.(current);
  }
  const stopsInMs = () =>
    idle === null || idle.reply.stopsInMs === null ? null : idle.reply.stopsInMs - (now() - idle.at);

  async function report() {
    startedAt = now();
    reporting = true;
    unreportedChangeMs = null;
    try {
      const [stats] = await Promise.all([options.collector.sample(), options.work?.sample()]);
      if (signal.aborted) return;
      reported = JSON.stringify(stats.satellites);
      const body = { ...stats, activity: news() };
      const reply = await options.client.call(postAgentStats, { body, signal });
      // Servers of earlier releases send no body.
      if (reply?.satellites) options.onSatellites?.(reply.satellites);
      hear(reply?.idle, 'same' in body.activity);
    } catch (error) {
      if (!signal.aborted) options.onFailure(error);
    }
    reporting = false;
    if (signal.aborted) return;
    timer = setTimeout(report, Math.max(waitMs(), 100));
  }

  function waitMs(): number {
    if (unreportedChangeMs !== null) return unreportedChangeMs;
    const regularMs = options.everyMs() - (now() - startedAt);
    const leftMs = stopsInMs();
    // Zero: it should have stopped, and waits for something else.
    if (leftMs === null || idle!.reply.stopsInMs! <= 0) return regularMs;
    return Math.min(regularMs, Math.max(leftMs, minIntervalMs - (now() - startedAt)));
  }

  function reportIn(ms: number) {
    if (signal.aborted || (unreportedChangeMs !== null && unreportedChangeMs <= ms)) return;
    unreportedChangeMs = ms;
    if (reporting) return;
    clearTimeout(timer);
    timer = setTimeout(report, ms);
  }
  const reportSoon = () => reportIn(Math.max(changeDelayMs, urgentIntervalMs - (now() - startedAt)));

  satellites?.onChange(() => {
    if (JSON.stringify(satellites.current()) !== reported) reportIn(changeDelayMs);
  });
  const unobserve = activity.observe((name, source) => {
    changed.add(name);
    if (source !== 'person' || idle === null) return;
    const leftMs = stopsInMs();
    const isNear = leftMs !== null && leftMs < urgentWithinMs;
    if (isNear || idle.reply.shutdown || options.isUrgent?.()) reportSoon();
  });
  signal.addEventListener(
    'abort',
    () => {
      clearTimeout(timer);
      unobserve();
    },
    { once: true },
  );
  void report();
  return { idle: () => idle && { reply: idle.reply, ageMs: Math.round(now() - idle.at) }, reportSoon };
}
