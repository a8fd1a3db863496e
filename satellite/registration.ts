import { hostname } from 'node:os';
import { CallError, type Client } from '@cde/api/client.ts';
import {
  postSatelliteHeartbeat,
  registerSatellite,
  type SatelliteCondition,
  type SatelliteConfig,
  type SatelliteLoad,
  type SatelliteManifest,
} from '@cde/api/satellites.ts';
import { backoff, type Clock, systemClock } from '@cde/tunnel/clock.ts';
import type { Log } from '@cde/tunnel/log.ts';

/** Between two attempts to register. */
const longestPauseMs = 15_000;
const requestMs = 10_000;

export interface Report {
  condition: SatelliteCondition;
  load: SatelliteLoad;
  /** Whose sessions are here. */
  users: string[];
}

/** True where the server will have nothing more to do with this satellite: it was removed, or is in another region. */
const isRefusal = (error: unknown): error is CallError =>
  error instanceof CallError &&
  ([401, 403].includes(error.status) || error.body.code === 'satellite-region-fixed');

/**
 * Registers at the server, for as long as that is away, and then reports in its rhythm until `signal` is
 * aborted. `refused` is called once the server does not know this satellite (any more); nothing follows.
 */
export async function joinServer(options: {
  client: Pick<Client, 'call'>;
  identity: { url: string; stun: string | null; version: string; region?: string | undefined };
  report: () => Report;
  onManifest: (manifest: SatelliteManifest) => void;
  onOrders: (orders: SatelliteConfig) => void;
  refused: (error: CallError) => void;
  signal: AbortSignal;
  log: Log;
  clock?: Clock;
}): Promise<{ reportNow(): Promise<void> }> {
  const { client, identity, signal, log, clock = systemClock } = options;
  const { url, stun, version, region } = identity;
  let over = false;
  let away = false;
  const refuse = (error: CallError) => {
    if (over) return;
    over = true;
    options.refused(error);
  };

  async function register(): Promise<SatelliteManifest | null> {
    for (let failures = 0; !signal.aborted && !over; failures++) {
      try {
        return await client.call(registerSatellite, {
          body: { url, stun, version, hostname: hostname(), ...(region !== undefined && { region }) },
          signal: AbortSignal.any([signal, AbortSignal.timeout(requestMs)]),
        });
      } catch (error) {
        if (signal.aborted) return null;
        if (isRefusal(error)) {
          refuse(error);
          return null;
        }
        if (failures === 0) log.warn({ why: wordsOf(error) }, 'cannot register; trying on');
        await clock.sleep(backoff(failures + 1, clock.random, longestPauseMs), signal);
      }
    }
    return null;
  }

  async function beat(): Promise<void> {
    try {
      const orders = await client.call(postSatelliteHeartbeat, {
        body: { ...options.report(), version },
        signal: AbortSignal.timeout(requestMs),
      });
      if (away) log.info({}, 'the server answers again');
      away = false;
      options.onOrders(orders);
    } catch (error) {
      if (isRefusal(error)) return refuse(error);
      // It serves on: sessions and tickets need no server.
      if (!away) log.warn({ why: wordsOf(error) }, 'the server does not answer; serving on without it');
      away = true;
    }
  }

  const manifest = await register();
  if (manifest) {
    options.onManifest(manifest);
    void (async () => {
      for (;;) {
        await clock.sleep(manifest.heartbeatEveryMs, signal);
        if (signal.aborted || over) return;
        await beat();
      }
    })();
  }
  return {
    async reportNow() {
      if (!over && manifest) await beat();
    },
  };
}

function wordsOf(error: unknown): string {
  if (!(error instanceof CallError)) return (error as Error).message;
  return error.body.detail ? `${error.message} (${error.body.detail})` : error.message;
}
