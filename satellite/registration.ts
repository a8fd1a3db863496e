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
const maxRetryDelayMs = 15_000;
const requestTimeoutMs = 10_000;

export interface Report {
  condition: SatelliteCondition;
  load: SatelliteLoad;
  /** Users with sessions here. */
  users: string[];
}

/** True if the server permanently rejects this satellite: it was removed, or its region does not match. */
const isRejection = (error: unknown): error is CallError =>
  error instanceof CallError &&
  ([401, 403].includes(error.status) || error.body.code === 'satellite-region-fixed');

/**
 * Registers at the server, retrying while it is unreachable, then sends heartbeats until `signal` is aborted.
 * `onRejected` is called if the server rejects this satellite; nothing is sent after that.
 */
export async function joinServer(options: {
  client: Pick<Client, 'call'>;
  identity: { url: string; stun: string | null; version: string; region?: string | undefined };
  report: () => Report;
  onManifest: (manifest: SatelliteManifest) => void;
  onOrders: (orders: SatelliteConfig) => void;
  onRejected: (error: CallError) => void;
  signal: AbortSignal;
  log: Log;
  clock?: Clock;
}): Promise<{ reportNow(): Promise<void> }> {
  const { client, identity, signal, log, clock = systemClock } = options;
  const { url, stun, version, region } = identity;
  let isRejected = false;
  let isUnreachable = false;
  const reject = (error: CallError) => {
    if (isRejected) return;
    isRejected = true;
    options.onRejected(error);
  };

  async function register(): Promise<SatelliteManifest | null> {
    for (let failures = 0; !signal.aborted && !isRejected; failures++) {
      try {
        return await client.call(registerSatellite, {
          body: { url, stun, version, hostname: hostname(), ...(region !== undefined && { region }) },
          signal: AbortSignal.any([signal, AbortSignal.timeout(requestTimeoutMs)]),
        });
      } catch (error) {
        if (signal.aborted) return null;
        if (isRejection(error)) {
          reject(error);
          return null;
        }
        if (failures === 0) log.warn({ why: describeError(error) }, 'cannot register; retrying');
        await clock.sleep(backoff(failures + 1, clock.random, maxRetryDelayMs), signal);
      }
    }
    return null;
  }

  async function sendHeartbeat(): Promise<void> {
    try {
      const orders = await client.call(postSatelliteHeartbeat, {
        body: { ...options.report(), version },
        signal: AbortSignal.timeout(requestTimeoutMs),
      });
      if (isUnreachable) log.info({}, 'the server is reachable again');
      isUnreachable = false;
      options.onOrders(orders);
    } catch (error) {
      if (isRejection(error)) return reject(error);
      // Sessions and tickets do not need the server.
      if (!isUnreachable)
        log.warn({ why: describeError(error) }, 'the server is unreachable; serving without it');
      isUnreachable = true;
    }
  }

  const manifest = await register();
  if (manifest) {
    options.onManifest(manifest);
    void (async () => {
      for (;;) {
        await clock.sleep(manifest.heartbeatEveryMs, signal);
        if (signal.aborted || isRejected) return;
        await sendHeartbeat();
      }
    })();
  }
  return {
    async reportNow() {
      if (!isRejected && manifest) await sendHeartbeat();
    },
  };
}

function describeError(error: unknown): string {
  if (!(error instanceof CallError)) return (error as Error).message;
  return error.body.detail ? `${error.message} (${error.body.detail})` : error.message;
}
