import { networkInterfaces } from 'node:os';

const pollIntervalMs = 1_000;
/** All paths of the process share one timer. */
const watchers = new Map<() => void, string>();
let timer: NodeJS.Timeout | undefined;

function poll(): void {
  const own = new Set<string>();
  for (const addresses of Object.values(networkInterfaces()))
    for (const { address } of addresses ?? []) own.add(address);
  for (const [onGone, address] of watchers)
    if (!own.has(address)) {
      watchers.delete(onGone);
      onGone();
    }
}

/**
 * Calls `onGone` when this machine loses the local address of a connection: no reply can arrive there, and TCP would
 * notice only after many seconds. Checks every second, without sending anything. Loopback addresses are ignored.
 * Returns a function that stops watching.
 */
export function watchLocalAddress(local: string | undefined, onGone: () => void): () => void {
  const address = local?.replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '');
  if (!address || address === '::1' || address.startsWith('127.')) return () => {};
  const once = () => onGone();
  watchers.set(once, address);
  timer ??= setInterval(poll, pollIntervalMs).unref();
  return () => {
    watchers.delete(once);
    if (watchers.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}
