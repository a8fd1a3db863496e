import {
  netcheck as measure,
  type NetcheckReport,
  type SatelliteReport,
} from '@cde/tunnel/netcheck/netcheck.ts';
import type { Context } from '../command/context.ts';
import { type Blocks, fields, line, type Result, result, table } from '../command/result.ts';
import { startNetcheck } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import { clean } from '../output/output.ts';

const ms = (value: number | null | undefined) => (value == null ? '' : `${value.toFixed(1)} ms`);
const rate = (value: number | null | undefined) =>
  value == null ? '' : `${(value / 1e6).toFixed(0)} Mbit/s`;
const plain = (value: number | null | undefined) => String(value ?? '');

/** Exits with `unreachable` if no satellite answers HTTPS. */
export async function netcheck(
  context: Context,
  input: { satellite: string | undefined; throughput: boolean },
): Promise<Result> {
  const { out, signal } = context;
  const client = await context.client();
  const { token, satellites } = await client.call(startNetcheck);
  const places = satellites.filter(({ name }) => input.satellite === undefined || name === input.satellite);
  if (places.length === 0)
    throw new Failure(
      'satellite-not-found',
      input.satellite === undefined
        ? 'No satellite is online.'
        : `No satellite ${input.satellite} is online.`,
      {
        exitCode: exitCodes.notFound,
        hint: satellites.length > 0 ? `Online: ${satellites.map(({ name }) => name).join(', ')}` : undefined,
      },
    );
  out.note(`Measuring ${places.length === 1 ? 'one satellite' : `${places.length} satellites`}.`);
  const report = await measure(places, {
    signal,
    token: input.throughput ? token : undefined,
    note: (text) => out.note(`${text[0]!.toUpperCase()}${text.slice(1)}.`),
  });
  return result(
    report,
    () => view(report, input.throughput),
    report.satellites.some(({ https }) => https.rttMs !== null) ? 0 : exitCodes.unreachable,
  );
}

const view = (report: NetcheckReport, throughput: boolean): Blocks => [
  table<SatelliteReport>(
    [
      { title: 'SATELLITE', cell: (row, c) => c.bold(clean(row.name)) },
      { title: 'REGION', cell: (row) => clean(row.region) },
      {
        title: 'HTTPS',
        cell: ({ https }, c) => (https.rttMs === null ? c.red('no') : ms(https.rttMs)),
        plain: ({ https }) => plain(https.rttMs),
      },
      {
        title: 'UDP',
        cell: ({ udp }, c) => (udp.answered ? ms(udp.train?.rttMs ?? udp.rttMs) : c.yellow('no')),
        plain: ({ udp }) => plain(udp.train?.rttMs ?? udp.rttMs),
      },
      {
        title: 'LOSS',
        cell: ({ udp }) => (udp.train ? `${udp.train.lossPercent} %` : ''),
        plain: ({ udp }) => plain(udp.train?.lossPercent),
      },
      {
        title: 'JITTER',
        cell: ({ udp }) => ms(udp.train?.jitterMs),
        plain: ({ udp }) => plain(udp.train?.jitterMs),
      },
      { title: 'SEEN AS', cell: ({ udp }) => udp.mapped ?? '' },
      ...(throughput
        ? [
            {
              title: 'DOWN',
              cell: (row: SatelliteReport) => rate(row.throughput?.downBitsPerSecond),
              plain: (row: SatelliteReport) => plain(row.throughput?.downBitsPerSecond),
            },
            {
              title: 'UP',
              cell: (row: SatelliteReport) => rate(row.throughput?.upBitsPerSecond),
              plain: (row: SatelliteReport) => plain(row.throughput?.upBitsPerSecond),
            },
          ]
        : []),
    ],
    report.satellites,
    'No satellites.',
  ),
  ...report.satellites.flatMap(({ name, https, udp, throughput: measured }) => {
    const failed = (what: string, error: string | null | undefined) =>
      error && line(`${clean(name)}: ${what}: ${clean(error)}`);
    return [failed('HTTPS', https.error), failed('UDP', udp.error), failed('throughput', measured?.error)];
  }),
  line(''),
  fields([
    ['udp', report.udp ? 'yes' : 'no answer from any satellite: sessions use HTTPS, or TCP to the agent'],
    ['nat', nats[report.nat]],
    ['ipv4', family(report.ipv4)],
    ['ipv6', family(report.ipv6)],
    ['proxy', report.proxy ? `${report.proxy.place} (${report.proxy.variable})` : 'none'],
  ]),
];

const nats: Record<NetcheckReport['nat'], string> = {
  none: 'none: this machine has a public address',
  'endpoint-independent': 'endpoint-independent: direct UDP paths work',
  'endpoint-dependent':
    'endpoint-dependent: direct UDP paths work only if the NAT of the workspace is not of this kind too',
  unknown: 'unknown: detection needs answers from two satellites',
};

const family = (works: boolean | null) =>
  works === null
    ? 'not tested: no satellite has such an address, or a proxy is in use'
    : works
      ? 'yes'
      : 'no';
