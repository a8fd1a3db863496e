import { type AgentWindow, postAgentConditions } from '@cde/api/diagnosis.ts';
import { maxReportAgeMs, windowMs } from '@cde/api/diagnosis-values.ts';
import { type HostSampler, makeHostSampler } from '@cde/tunnel/recording/host-sampler.ts';
import { isRejection, type ServerClient } from '../server/client.ts';
import type { UsageSource } from './usage.ts';

const tickMs = 1_000;
/** Three windows, so that their part of a report of a client is known soon after it. */
const reportEveryMs = 30_000;
/** A window in which the workspace was that busy, or ran out of memory, is reported at once: it may explain what a person notices. */
const busy = { percent: 25, loopDelayMs: 60 };
/** An hour of windows, for a server that is unreachable. */
const maxWindows = 360;

/**
 * Records the conditions in the workspace in windows of ten seconds while it has sessions, and reports them: by them slow
 * spells are explained. Returns what stops it.
 */
export async function reportConditions(options: {
  client: ServerClient;
  usage: UsageSource;
  /** In bytes, if the control group has no limit. */
  memoryLimit: number | null;
  process: string;
  hasSessions: () => boolean;
  now?: () => number;
  /** Calls back every second, in tests when they say. */
  every?: (ms: number, tick: () => void) => () => void;
  host?: HostSampler;
}): Promise<() => void> {
  const { client, usage, hasSessions, now = Date.now, every = everyMs } = options;
  const host =
    options.host ??
    (await makeHostSampler({
      async group() {
        const [{ throttledMs }, memory] = await Promise.all([usage.limitsHit(), usage.memory()]);
        const limit = memory.limit ?? options.memoryLimit;
        return { throttledMs, memoryPercent: limit ? (100 * memory.used) / limit : null };
      },
    }));
  let kills = (await usage.limitsHit()).outOfMemoryKills;
  let windows: (Omit<AgentWindow, 'agoMs'> & { at: number })[] = [];
  /** What the server may not have stored yet: repeated under its number, so that it is stored once. */
  let undelivered: { batch: number; windows: typeof windows } | undefined;
  let lastBatch = 0;
  let tickedAt = now();
  let begunAt = tickedAt;
  let reportedAt = tickedAt;
  let isReporting = false;
  let isUrgent = false;
  let isRefused = false;

  async function tick(): Promise<void> {
    const at = now();
    host.late(Math.min(at - tickedAt - tickMs, windowMs));
    tickedAt = at;
    if (at - begunAt >= windowMs) await closeWindow(at);
    const isDue = isUrgent || at - reportedAt >= reportEveryMs;
    if (isDue && (undelivered || windows.length > 0)) await report(at);
  }

  async function closeWindow(at: number): Promise<void> {
    const begun = begunAt;
    begunAt = at;
    // Also without sessions, so that the next window holds nothing older.
    const [sample, { outOfMemoryKills }] = await Promise.all([host.sample(), usage.limitsHit()]);
    const killed = Math.max(0, outOfMemoryKills - kills);
    kills = outOfMemoryKills;
    if (!hasSessions() && killed === 0) return;
    windows.push({
      at: begun,
      ms: Math.min(at - begun, 6 * windowMs),
      host: sample,
      outOfMemoryKills: killed,
    });
    if (windows.length > maxWindows) windows.shift();
    const { cpuWaitPercent, throttledPercent, loopDelayMs } = sample;
    const percent = Math.max(cpuWaitPercent ?? 0, throttledPercent ?? 0);
    isUrgent ||= killed > 0 || percent >= busy.percent || loopDelayMs >= busy.loopDelayMs;
  }

  async function report(at: number): Promise<void> {
    if (isReporting || isRefused) return;
    isReporting = true;
    isUrgent = false;
    reportedAt = at;
    if (!undelivered) {
      undelivered = { batch: ++lastBatch, windows };
      windows = [];
    }
    const { batch, windows: sent } = undelivered;
    try {
      const recent = sent.filter(({ at: begun }) => at - begun < maxReportAgeMs);
      await client.call(postAgentConditions, {
        body: {
          ...{ process: options.process, batch },
          windows: recent.map(({ at: begun, ...window }) => ({
            ...window,
            agoMs: Math.max(0, now() - begun),
          })),
        },
      });
      undelivered = undefined;
    } catch (error) {
      // A server of an earlier release does not take them.
      isRefused = isRejection(error) || (error as { status?: number }).status === 404;
    } finally {
      isReporting = false;
    }
  }

  // Files of the control group can be missing for a moment; the next window has them.
  return every(tickMs, () => void tick().catch(() => {}));
}

function everyMs(ms: number, tick: () => void): () => void {
  const timer = setInterval(tick, ms).unref();
  return () => clearInterval(timer);
}
