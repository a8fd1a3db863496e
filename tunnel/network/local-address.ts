import { networkInterfaces } from 'node:os';

const lookEveryMs = 1_000;
/** One look serves all who watch: an agent, or a client, holds several paths. */
const watchers = new Map<() => void, string>();
let timer: NodeJS.Timeout | undefined;

function look(): void {
  const own = new Set<string>();
  for (const addresses of Object.values(networkInterfaces()))
    for (const { address } of addresses ?? []) own.add(address);
  for (const [gone, address] of watchers)
    if (!own.has(address)) {
      watchers.delete(gone);
      gone();
    }
}

/**
 * Calls `gone` once this machine does not have the address any more that a connection of its was made from: nothing
 * can come back on it, and TCP would find out only after many seconds. Looks every second, and sends nothing.
 * Loopback addresses stay. Returns the stopper.
 */
export function watchLocalAddress(local: string | undefined, gone: () => void): () => void {
  const address = local?.replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '');
  if (!address || address === '::1' || address.startsWith('127.')) return () => {};
  const once = () => gone();
  watchers.set(once, address);
  timer ??= setInterval(look, lookEveryMs).unref();
  return () => {
    watchers.delete(once);
    if (watchers.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}
