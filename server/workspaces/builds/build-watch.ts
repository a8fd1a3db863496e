import type { Bus } from '../../events/bus.ts';

/** Backs up the bus, in case an event of another replica is lost. */
const pollMs = 2_000;

/**
 * Watches one build for up to `timeoutMs`. `next` resolves with true after a change, and with false once the time is up
 * or the client has disconnected.
 */
export function watchBuild(
  bus: Bus,
  buildId: string,
  timeoutMs: number,
  socket: Pick<NodeJS.EventEmitter, 'once' | 'off'>,
): { next(): Promise<boolean>; stop(): void } {
  let finished = timeoutMs <= 0;
  let changed = false;
  let wake: (() => void) | null = null;
  const touch = () => {
    changed = true;
    wake?.();
  };
  const finish = () => {
    finished = true;
    touch();
  };
  const unsubscribe = bus.subscribe((change) => {
    if (change.buildId === buildId) touch();
  }, touch);
  const timeout = setTimeout(finish, timeoutMs);
  const poll = setInterval(touch, pollMs);
  socket.once('close', finish);
  return {
    async next() {
      if (finished) return false;
      if (!changed)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      changed = false;
      return !finished;
    },
    stop() {
      unsubscribe();
      // A keep-alive connection outlives the request.
      socket.off('close', finish);
      clearTimeout(timeout);
      clearInterval(poll);
    },
  };
}
