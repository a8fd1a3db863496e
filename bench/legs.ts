/**
 * The round trip through a relay with 20, 80 and 200 ms of delay in each leg (half of it each way). Baseline: the sum of
 * both legs, measured with plain TCP in the same run. Client, satellite and agent run in separate network namespaces.
 * Prints medians and the ratio to the sum.
 * Usage: node bench/legs.ts. Needs Linux, root, ip, iptables and python3.
 */
import { fileURLToPath } from 'node:url';
import { makeAddress, makeHost } from '../tests/faults/network/network.ts';
import { begin, type DialInfo, dial, echo, percentile, plainTcp, startParts } from './parts.ts';

/** What a process on a host measures, in microseconds: echoes through the relay, or from an address. */
interface Measurement {
  echoes: number;
  relay?: DialInfo;
  plain?: { host: string; port: number };
}
const thisFile = fileURLToPath(import.meta.url);
if (process.env.CDE_BENCH_ROLE === 'measure') {
  process.once('message', async ({ echoes, relay, plain }: Measurement) => {
    const session = relay && (await dial(relay, 'relay'));
    const stream = session
      ? await session.open({ kind: 'tcp', host: relay.host, port: relay.port })
      : await plainTcp(plain!.host, plain!.port);
    // Drop the first few, which run with the initial windows and timers.
    const times = (await echo(stream, echoes + 5)).slice(5);
    if (session && session.path.kind !== 'relay') throw new Error('the session has left the relay');
    process.send!(times, () => process.exit());
  });
} else {
  const address = makeAddress();
  const [clients, agents] = [await makeHost(), await makeHost()];
  const remote = { host: agents.address, prefix: agents.prefix };
  const parts = await startParts({ satellite: { host: address.address }, agent: remote });
  const near = await startParts({ satellite: { host: address.address }, agent: { host: address.address } });
  const plain = { host: address.address, port: near.dialInfo.port };
  try {
    console.log('ms        client–satellite   satellite–agent   relay p50   p99   ratio to sum');
    for (const delayMs of [0, 20, 80, 200]) {
      for (const host of [clients, agents]) await host.set({ delayMs: delayMs / 2 });
      const echoes = delayMs === 0 ? 500 : Math.round(10_000 / delayMs);
      const measure = async (measurement: Omit<Measurement, 'echoes'>, prefix: string[]) =>
        (await begin<number[]>(thisFile, 'measure', { ...measurement, echoes }, { host: '', prefix })).reply;
      const first = percentile(await measure({ plain }, clients.prefix), 0.5) / 1e3;
      const second = percentile(await measure({ plain }, agents.prefix), 0.5) / 1e3;
      const relayed = await measure({ relay: parts.dialInfo }, clients.prefix);
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
    address.remove();
  }
}
