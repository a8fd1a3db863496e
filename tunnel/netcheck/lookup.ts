import { lookup } from 'node:dns/promises';
import { once } from 'node:events';

/** The addresses of a host. Rejects when it is unknown, or when the signal is aborted. */
export async function lookupWithin(host: string, signal: AbortSignal): Promise<string[]> {
  const found = lookup(host, { all: true });
  found.catch(() => {});
  const aborted = once(signal, 'abort').then(() => {
    throw new Error('no answer in time');
  });
  aborted.catch(() => {});
  signal.throwIfAborted();
  return (await Promise.race([found, aborted])).map(({ address }) => address);
}
