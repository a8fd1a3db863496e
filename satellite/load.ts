import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { SatelliteLoad } from '@cde/api/satellites.ts';
import type { Relay } from './relay/relay.ts';

/** Measures the satellite's load between two calls of `sample`. */
export function makeLoadMeter(relay: Pick<Relay, 'stats'>): { sample(): SatelliteLoad; stop(): void } {
  const resolutionMs = 10;
  const loopDelay = monitorEventLoopDelay({ resolution: resolutionMs });
  loopDelay.enable();
  let last = { at: performance.now(), bytes: 0 };
  return {
    sample() {
      const stats = relay.stats();
      const now = { at: performance.now(), bytes: stats.bytesToAgents + stats.bytesToClients };
      const seconds = Math.max((now.at - last.at) / 1000, 0.001);
      const bytesPerSecond = Math.round((now.bytes - last.bytes) / seconds);
      last = now;
      const loopDelayMs = Math.max(0, loopDelay.percentile(99) / 1e6 - resolutionMs);
      loopDelay.reset();
      return {
        sessions: stats.sessions,
        agents: stats.workspaces,
        bytesPerSecond,
        memoryBytes: process.memoryUsage.rss(),
        loopDelayMs: Number.isFinite(loopDelayMs) ? Math.round(loopDelayMs * 10) / 10 : 0,
      };
    },
    stop: () => loopDelay.disable(),
  };
}
