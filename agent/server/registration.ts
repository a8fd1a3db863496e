import { type AgentManifest, registerAgent } from '@cde/api/agent.ts';
import type { CallError } from '@cde/api/client.ts';
import { type Clock, systemClock } from '@cde/tunnel/clock.ts';
import { isRejection, retryTransient, type ServerClient } from './client.ts';

export interface Registration {
  /** The manifest of the last registration. */
  readonly manifest: AgentManifest;
  /** Registers again; calls at the same time share one. Resolves with the new manifest. */
  renew(): Promise<AgentManifest>;
  /** The listen token for a satellite. Registers again if it has expired or was rejected (`stale`). */
  listenToken(url: string, options: { stale: boolean }): Promise<string>;
}

/** Fraction of the token's lifetime after which it is renewed, leaving time for a server that is unreachable. */
const renewFraction = 0.7;
/** The maximum of setTimeout. */
const maxTimerMs = 2 ** 31 - 1;

/**
 * Registers, retrying while the server is unreachable, and renews the registration before it expires. `onManifest`
 * receives every manifest, including the first. If the server rejects the agent (401, 403, 410), `onRejected` is called
 * and the promise of that registration never settles.
 */
export async function register(options: {
  client: ServerClient;
  identity: { tlsPublicKey: string; sshHostKey: string; version: string; hostname: string };
  signal: AbortSignal;
  onManifest: (manifest: AgentManifest) => void;
  onRejected: (error: CallError) => void;
  onRetry?: (error: unknown, failures: number, waitMs: number) => void;
  clock?: Clock;
  /** The time of day in milliseconds. */
  now?: () => number;
}): Promise<Registration> {
  const { client, identity, signal, clock = systemClock, now = Date.now } = options;
  let manifest: AgentManifest;
  let inProgress: Promise<AgentManifest> | undefined;
  let timer: NodeJS.Timeout | undefined;

  function renew(): Promise<AgentManifest> {
    inProgress ??= attempt().finally(() => {
      inProgress = undefined;
    });
    return inProgress;
  }

  async function attempt(): Promise<AgentManifest> {
    try {
      manifest = await retryTransient(() => client.call(registerAgent, { body: identity }), {
        signal,
        clock,
        ...(options.onRetry && { onRetry: options.onRetry }),
      });
    } catch (error) {
      if (!isRejection(error)) throw error;
      options.onRejected(error);
      return new Promise<never>(() => {});
    }
    clearTimeout(timer);
    const left = Date.parse(manifest.listenTokenExpiresAt) - now();
    const wait = Math.min(Math.max(left * renewFraction, 1000), maxTimerMs);
    timer = setTimeout(() => void renew().catch(() => {}), wait).unref();
    options.onManifest(manifest);
    return manifest;
  }

  signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  await renew();
  return {
    get manifest() {
      return manifest;
    },
    renew,
    async listenToken(url, { stale }) {
      if (stale || Date.parse(manifest.listenTokenExpiresAt) <= now()) await renew();
      return manifest.satellites.find((each) => each.url === url)?.listenToken ?? manifest.listenToken;
    },
  };
}
