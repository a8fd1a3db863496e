import type { NetcheckReport, SatelliteReport } from '@cde/tunnel/netcheck/netcheck.ts';
import { type Blocks, fields, line, table } from '../command/result.ts';
import type { Failure } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { duration } from '../output/times.ts';

const ms = (value: number | null | undefined) => (value == null ? '' : `${value.toFixed(1)} ms`);
const rate = (value: number | null | undefined) =>
  value == null ? '' : `${(value / 1e6).toFixed(0)} Mbit/s`;
const plain = (value: number | null | undefined) => String(value ?? '');

export const view = (report: NetcheckReport, throughput: boolean, failure: Failure | null): Blocks => [
  failure && line(`There is no list of satellites: ${clean(failure.message)} [${failure.code}]`),
  !failure && satelliteTable(report, throughput),
  ...report.satellites.flatMap(({ name, https, udp, throughput: measured }) => {
    const failed = (what: string, error: string | null | undefined) =>
      error && line(`${clean(name)}: ${what}: ${clean(error)}`);
    return [failed('HTTPS', https.error), failed('UDP', udp.error), failed('throughput', measured?.error)];
  }),
  !report.complete && line('Some of it had not ended in time and is missing.'),
  line(''),
  fields([...verdicts(report)].map(([name, text]) => [name, clean(text)])),
];

const satelliteTable = (report: NetcheckReport, throughput: boolean) =>
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
  );

/** The report's statements about this network, by name. */
export function verdicts(report: NetcheckReport): Map<string, string> {
  const { proxy, captivePortal } = report;
  return new Map([
    ['udp', report.udp ? 'yes' : 'no answer from any satellite: sessions use HTTPS, or TCP to the agent'],
    ['nat', nats[report.nat]],
    ['ipv4', family(report.ipv4)],
    ['ipv6', ipv6(report)],
    ['proxy', proxy ? `${proxy.place} (${proxy.variable})` : 'none'],
    ['dns', dns(report)],
    [
      'portal',
      captivePortal
        ? `a captive portal: sign in to this network${captivePortal.location ? ` at ${captivePortal.location}` : ' in a browser'}`
        : 'none found',
    ],
    ['tls', tls(report)],
    ['mtu', mtu(report)],
    ['clock', clock(report.clockAheadSeconds)],
  ]);
}

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

const ipv6 = ({ ipv6, ipv6Address }: NetcheckReport) =>
  ipv6 === true || ipv6Address ? family(ipv6) : 'this machine has no IPv6 address';

function dns({ dns: { resolvers, lookups } }: NetcheckReport): string {
  const failed = lookups.filter(({ error }) => error !== null);
  const slowest = Math.max(0, ...lookups.map((each) => each.ms ?? 0));
  const found =
    lookups.length === 0
      ? 'no names to look up'
      : failed.length > 0
        ? failed.map(({ host, error }) => `${host} cannot be looked up: ${error}`).join('; ')
        : `${lookups.length === 1 ? 'the name' : `${lookups.length} names`} in ${Math.round(slowest)} ms`;
  const asked = resolvers.map(({ address, ms, error }) =>
    error !== null ? `${address}: ${error}` : ms === null ? address : `${address} ${Math.round(ms)} ms`,
  );
  return asked.length === 0 ? found : `${found} (${asked.join('; ')})`;
}

function tls({ tlsInterception: { intercepted, issuer }, server, satellites }: NetcheckReport): string {
  if (intercepted) return `intercepted: something on the way shows certificates of ${issuer}`;
  if (intercepted === false) return 'not intercepted';
  if (issuer !== null)
    return `cannot be told: the certificates are of ${issuer}, which may be your company’s or that of an interceptor`;
  const isPlain = [...(server ? [server] : []), ...satellites].every(({ url }) => url.startsWith('http:'));
  return isPlain ? 'not used: server and satellites are plain HTTP' : 'unknown: nothing answered by HTTPS';
}

function mtu({ mtu: { interfaceMtu, pathMtu, largePackets } }: NetcheckReport): string {
  const sizes = [
    pathMtu === null ? null : `${pathMtu} bytes on the path`,
    interfaceMtu === null ? null : `${interfaceMtu} at this machine`,
  ].filter((text) => text !== null);
  if (largePackets === false)
    return `large packets are lost on the way${sizes.length > 0 ? ` (${sizes.join(', ')})` : ''}: lower the MTU of the VPN or interface, for example to 1280`;
  return sizes.join(', ') || 'unknown';
}

function clock(ahead: number | null): string {
  if (ahead === null) return 'unknown';
  if (ahead === 0) return 'right';
  return `${duration(Math.abs(ahead) * 1_000)} ${ahead > 0 ? 'ahead' : 'behind'}`;
}

/** One measurement of `--watch` in a line. */
export function watchLine(report: NetcheckReport, failure: Failure | null, at: Date): string {
  const time = at.toTimeString().slice(0, 8);
  const all = report.satellites.map(({ name, https, udp }) => {
    const byUdp = udp.answered
      ? `UDP ${ms(udp.train?.rttMs ?? udp.rttMs)}${udp.train ? `, ${udp.train.lossPercent} % lost` : ''}`
      : 'no UDP';
    return clean(`${name} ${https.rttMs === null ? 'unreachable' : ms(https.rttMs)}, ${byUdp}`);
  });
  return `${time}  ${failure ? clean(failure.message) : all.join('; ')}`;
}
