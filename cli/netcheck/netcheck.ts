import {
  netcheck as measure,
  type NetcheckReport,
  type SatelliteReport,
} from '@cde/tunnel/netcheck/netcheck.ts';
import type { Context } from '../context.ts';
import { startNetcheck } from '../endpoints.ts';
import { exitCodes } from '../exit-codes.ts';
import { Failure } from '../failure.ts';
import { clean } from '../output.ts';

const ms = (value: number | null | undefined) => (value == null ? '' : `${value.toFixed(1)} ms`);
const rate = (value: number | null | undefined) =>
  value == null ? '' : `${(value / 1e6).toFixed(0)} Mbit/s`;
const plain = (value: number | null | undefined) => String(value ?? '');

/** Prints what is measured; ends with `unreachable` where no satellite answers by HTTPS. */
export async function netcheck(
  context: Context,
  input: { satellite: string | undefined; throughput: boolean },
): Promise<number | undefined> {
  const { out, signal } = context;
  const client = await context.client();
  const { token, satellites } = await client.call(startNetcheck);
  const places = satellites.filter(({ name }) => input.satellite === undefined || name === input.satellite);
  if (places.length === 0)
    throw new Failure('satellite-not-found', `No satellite ${input.satellite ?? ''} serves at the moment.`, {
      exitCode: exitCodes.notFound,
      hint: `They are: ${satellites.map(({ name }) => name).join(', ') || 'none'}`,
    });
  out.note(`Measuring ${places.length === 1 ? 'one satellite' : `${places.length} satellites`}.`);
  const report = await measure(places, {
    signal,
    token: input.throughput ? token : undefined,
    note: (text) => out.note(`${text[0]!.toUpperCase()}${text.slice(1)}.`),
  });
  if (out.json) out.printJson(report);
  else print(context, report, input.throughput);
  return report.satellites.some(({ https }) => https.rttMs !== null) ? undefined : exitCodes.unreachable;
}

function print({ out }: Context, report: NetcheckReport, throughput: boolean): void {
  out.table<SatelliteReport>(
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
  );
  for (const { name, https, udp, throughput: measured } of report.satellites) {
    const why = (what: string, error: string | null | undefined) =>
      error && out.print(`${clean(name)}: ${what}: ${clean(error)}`);
    why('HTTPS', https.error);
    why('UDP', udp.error);
    why('throughput', measured?.error);
  }
  out.print('');
  out.fields([
    ['udp', report.udp ? 'yes' : 'no satellite answers: sessions go over HTTPS, or to the agent by TCP'],
    ['nat', nats[report.nat]],
    ['ipv4', family(report.ipv4)],
    ['ipv6', family(report.ipv6)],
    ['proxy', report.proxy ? `${report.proxy.place} (${report.proxy.variable})` : 'none'],
  ]);
}

const nats: Record<NetcheckReport['nat'], string> = {
  none: 'none: this machine is seen by an address of its own',
  'endpoint-independent': 'endpoint-independent: direct paths by UDP come about',
  'endpoint-dependent':
    'endpoint-dependent: direct paths by UDP come about only where the other end has none such',
  unknown: 'unknown: it takes the answers of two satellites',
};

const family = (works: boolean | null) =>
  works === null
    ? 'not tried: no satellite has such an address, or a proxy goes there'
    : works
      ? 'yes'
      : 'no';
