import type { Clock } from '@cde/tunnel/clock.ts';

/** When a satellite is lost, the agents of all its workspaces refresh their manifest; spread over this time. */
const spreadMs = 5000;
/** Once at once and twice later, since a replacement may take a while to start. */
const rounds = [0, 1, 1];

/**
 * Returns a function to call when a satellite is lost, which may not come back: its server may have been replaced. Calls
 * during a refresh do not start another.
 */
export function makeManifestRefresh(options: {
  renew: () => Promise<unknown>;
  signal: AbortSignal;
  clock: Clock;
}): () => Promise<void> {
  const { renew, signal, clock } = options;
  let refreshing = false;
  return async () => {
    if (refreshing) return;
    refreshing = true;
    for (const later of rounds) {
      await clock.sleep((later + clock.random()) * spreadMs, signal);
      if (signal.aborted) return;
      await renew().catch(() => {});
    }
    refreshing = false;
  };
}
