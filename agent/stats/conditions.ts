import type { AgentWindow } from '@cde/api/diagnosis.ts';
import { postAgentConditions } from '@cde/api/diagnosis.ts';
import { windowMs } from '@cde/api/diagnosis-values.ts';
import { type HostSampler, makeHostSampler } from '@cde/tunnel/recording/host-sampler.ts';
import type { ServerClient } from '../server/client.ts';
import { isRejection } from '../server/client.ts';
import type { UsageSource } from './usage.ts';

const tickMs = 1_000;
/** Three windows, so that their part of a report of a client is known soon after it. */
const reportEveryMs = 30_000;
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
  let batch = 0;
  let tickedAt = now();
  let begunAt = tickedAt;
  let reportedAt = tickedAt;
  let isReporting = false;
  let isRefused = false;

  async function tick(): Promise<void> {
    const at = now();
    host.late(Math.min(at - tickedAt - tickMs, windowMs));
    tickedAt = at;
    if (at - begunAt >= windowMs) await closeWindow(at);
    if (at - reportedAt >= reportEveryMs && windows.length > 0) await report(at);
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
  }

  async function report(at: number): Promise<void> {
    if (isReporting || isRefused) return;
    isReporting = true;
    reportedAt = at;
    const sent = windows;
    windows = [];
    try {
      await client.call(postAgentConditions, {
        body: {
          process: options.process,
          batch: ++batch,
          windows: sent.map(({ at: begun, ...window }) => ({ ...window, agoMs: Math.max(0, now() - begun) })),
        },
      });
    } catch (error) {
      // A server of an earlier release does not take them.
      isRefused = isRejection(error) || (error as { status?: number }).status === 404;
      windows = [...sent, ...windows].slice(-maxWindows);
    } finally {
      isReporting = false;
    }
  }

  return every(tickMs, () => void tick().catch(() => {}));
}

function everyMs(ms: number, tick: () => void): () => void {
  const timer = setInterval(tick, ms).unref();
  return () => clearInterval(timer);
}
