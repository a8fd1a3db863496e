/**
 * The round trip through a relay with 20, 80 and 200 ms of delay in each leg (half of it each way), beside the sum of
 * the two legs as plain TCP connections have them, in the same run. Client, satellite and agent are on hosts of their
 * own (network namespaces). Prints medians, and the ratio to the sum.
 * Usage: node bench/legs.ts. Linux, root; needs ip, iptables, python3.
 */
import { fileURLToPath } from 'node:url';
import { makeAddress, makeHost } from '../tests/faults/network/network.ts';
import { begin, type Dialling, dial, echo, percentile, plainTcp, startParts } from './parts.ts';

/** What a process on a host measures: the program by the relay, or a program at an address, in microseconds. */
interface Order {
  echoes: number;
  relay?: Dialling;
  plain?: { host: string; port: number };
}
const thisFile = fileURLToPath(import.meta.url);
if (process.env.CDE_BENCH_ROLE === 'measure') {
  process.once('message', async ({ echoes, relay, plain }: Order) => {
    const session = relay && (await dial(relay, 'relay'));
    const stream = session
      ? await session.open({ kind: 'tcp', host: relay.host, port: relay.port })
      : await plainTcp(plain!.host, plain!.port);
    // The first few find windows and timers as they are at the start.
    const times = (await echo(stream, echoes + 5)).slice(5);
    if (session && session.path.kind !== 'relay') throw new Error('the session has left the relay');
    process.send!(times, () => process.exit());
  });
} else {
  const place = makeAddress();
  const [clients, agents] = [await makeHost(), await makeHost()];
  const away = { host: agents.address, prefix: agents.prefix };
  const parts = await startParts({ satellite: { host: place.address }, agent: away });
  const near = await startParts({ satellite: { host: place.address }, agent: { host: place.address } });
  const plain = { host: place.address, port: near.dialling.port };
  try {
    console.log('ms        client–satellite   satellite–agent   relay p50   p99   to the sum');
    for (const delayMs of [0, 20, 80, 200]) {
      for (const host of [clients, agents]) await host.set({ delayMs: delayMs / 2 });
      const echoes = delayMs === 0 ? 500 : Math.round(10_000 / delayMs);
      const measure = async (order: Omit<Order, 'echoes'>, prefix: string[]) =>
        (await begin<number[]>(thisFile, 'measure', { ...order, echoes }, { host: '', prefix })).said;
      const first = percentile(await measure({ plain }, clients.prefix), 0.5) / 1e3;
      const second = percentile(await measure({ plain }, agents.prefix), 0.5) / 1e3;
      const relayed = await measure({ relay: parts.dialling }, clients.prefix);
      const [p50, p99] = [percentile(relayed, 0.5) / 1e3, percentile(relayed, 0.99) / 1e3];
      const cell = (value: number, width: number) => value.toFixed(1).padStart(width);
      console.log(
        `${String(delayMs).padEnd(9)} ${cell(first, 16)}   ${cell(second, 15)}   ${cell(p50, 9)} ${cell(p99, 5)}   ${(p50 / (first + second)).toFixed(3)}`,
      );
    }
  } finally {
    parts.close();
    near.close();
    await clients.remove();
    await agents.remove();
    place.remove();
  }
}
