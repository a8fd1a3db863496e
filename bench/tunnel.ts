import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { pathKinds } from '@cde/tunnel/pipe/path.ts';
import { bulkBytes, dial, echo, percentile, plainTcp, startParts } from './parts.ts';

/**
 * Throughput each way, the echo of 64 bytes, and the time to open a session, over relay and over direct paths. Client,
 * satellite, agent and a program in the workspace are four processes on loopback. Baseline: a plain TCP connection to
 * the same program, in the same run. Prints medians; only the ratios carry over to other machines.
 * Usage: node bench/tunnel.ts
 */
const rounds = 5;
const echoes = 2_000;

const parts = await startParts();
try {
  const { dialInfo } = parts;
  const { host, port } = dialInfo;
  const openTimes: number[] = [];
  for (let i = 0; i < 20; i++) {
    const startedAt = performance.now();
    const one = await dial(dialInfo, 'relay');
    const stream = await one.open({ kind: 'tcp', host, port });
    openTimes.push(performance.now() - startedAt);
    stream.on('error', () => {});
    one.close();
  }

  const sessions = {
    relay: await dial(dialInfo, 'relay'),
    direct: await dial(dialInfo, 'direct-tcp'),
    udp: await dial(dialInfo, 'direct-udp'),
  };
  const ways = {
    plain: () => plainTcp(host, port),
    relay: () => sessions.relay.open({ kind: 'tcp', host, port }),
    direct: () => sessions.direct.open({ kind: 'tcp', host, port }),
    udp: () => sessions.udp.open({ kind: 'tcp', host, port }),
  };
  const names = ['download MB/s', 'upload MB/s', 'echo p50 µs', 'echo p99 µs'] as const;
  const empty = () => ({
    plain: [] as number[],
    relay: [] as number[],
    direct: [] as number[],
    udp: [] as number[],
  });
  const results = Object.fromEntries(names.map((name) => [name, empty()]));
  for (let round = 0; round < rounds; round++) {
    for (const [name, open] of Object.entries(ways) as [keyof typeof ways, () => Promise<Duplex>][]) {
      results['download MB/s']![name].push(await download(await open()));
      results['upload MB/s']![name].push(await upload(await open()));
      const times = await echo(await open(), echoes);
      results['echo p50 µs']![name].push(percentile(times, 0.5));
      results['echo p99 µs']![name].push(percentile(times, 0.99));
    }
  }
  if (Object.values(sessions).some(({ path }, i) => path.kind !== pathKinds[i]))
    throw new Error('a session has left the path that it is measured on');
  for (const session of Object.values(sessions)) session.close();

  console.log(`${rounds} rounds of ${bulkBytes / 2 ** 20} MiB and ${echoes} echoes, medians`);
  const cell = (text: string) => text.padStart(13);
  const columns = ['plain TCP', ...pathKinds, 'relay/plain', 'tcp/plain', 'tcp/relay', 'udp/relay'];
  console.log(`${' '.repeat(16)}${columns.map(cell).join('')}`);
  for (const [name, { plain, relay, direct, udp }] of Object.entries(results)) {
    const [a, b, c, d] = [plain, relay, direct, udp].map((values) => percentile(values, 0.5)) as [
      number,
      number,
      number,
      number,
    ];
    const values = [a, b, c, d].map((value) => value.toFixed(0));
    const ratios = [b / a, c / a, c / b, d / b].map((value) => value.toFixed(2));
    console.log(`${name.padEnd(16)}${[...values, ...ratios].map(cell).join('')}`);
  }
  console.log(
    `session and first stream open: p50 ${percentile(openTimes, 0.5).toFixed(1)} ms, worst of ${openTimes.length} ${Math.max(...openTimes).toFixed(1)} ms`,
  );
} finally {
  parts.close();
}

async function download(stream: Duplex): Promise<number> {
  const startedAt = performance.now();
  let bytes = 0;
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  stream.write('d');
  await once(stream, 'end');
  stream.end();
  return bytes / 1e3 / (performance.now() - startedAt);
}

async function upload(stream: Duplex): Promise<number> {
  const block = randomBytes(256 * 1024);
  const startedAt = performance.now();
  stream.write('u');
  for (let sent = 0; sent < bulkBytes; sent += block.length) {
    if (!stream.write(block)) await once(stream, 'drain');
  }
  stream.end();
  stream.resume();
  await once(stream, 'end');
  return bulkBytes / 1e3 / (performance.now() - startedAt);
}
