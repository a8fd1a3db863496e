import { connect, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { configuredProxy, proxyHint } from '../network/proxy.ts';
import { probeOnce, probeUrl } from '../selection/measure.ts';
import { checkDns, type DnsReport } from './dns-check.ts';
import { checkEndpoint, type EndpointReport } from './endpoint-check.ts';
import { lookupWithin } from './lookup.ts';
import { checkMtu, type MtuReport } from './mtu-check.ts';
import { makeProbeAgent } from './probe-request.ts';
import { checkThroughput, type Throughput } from './throughput-check.ts';
import { checkUdp, median, type NatKind, round, type UdpReport } from './udp-check.ts';

/** The first request includes connecting and does not count. */
const requests = 6;
const connectMs = 2_000;
/** Everything but throughput ends by then, with the results there are. */
const defaultBudgetMs = 5_000;

export interface NetcheckSatellite {
  name: string;
  url: string;
  region: string;
  stun?: string | undefined;
}

export interface SatelliteReport {
  name: string;
  region: string;
  url: string;
  /** Median and minimum round trip of requests over one connection, in milliseconds. */
  https: { rttMs: number | null; leastMs: number | null; error: string | null };
  /** Whether a TCP connection succeeds; null if there is no such address, or a proxy connects for us. */
  ipv4: boolean | null;
  ipv6: boolean | null;
  udp: UdpReport;
  /** What answers there. */
  endpoint: EndpointReport;
  /** Only if it was requested. */
  throughput?: Throughput;
}

export interface NetcheckReport {
  /** False if something had not ended in time. */
  complete: boolean;
  elapsedMs: number;
  /** True if any satellite answers by UDP. */
  udp: boolean;
  nat: NatKind;
  /** Whether any satellite is reachable this way; null if none has such an address. */
  ipv4: boolean | null;
  ipv6: boolean | null;
  /** Whether this machine has an IPv6 address for the internet. */
  ipv6Address: boolean;
  /** The HTTPS proxy. */
  proxy: { variable: string; place: string } | null;
  dns: DnsReport;
  /** The network asks to sign in on a page of its own; null if no answer looked like it. */
  captivePortal: { location: string | null } | null;
  /** Something decrypts HTTPS on the way; null if that cannot be told. `issuer` is of the certificates that it shows. */
  tlsInterception: { intercepted: boolean | null; issuer: string | null };
  /** The median over all that answered; null if none did. */
  clockAheadSeconds: number | null;
  mtu: MtuReport;
  /** What answers at the address of the server; null if it was not asked. */
  server: EndpointReport | null;
  satellites: SatelliteReport[];
}

export interface NetcheckOptions {
  signal: AbortSignal;
  /** Of the server. It is measured even if the list of satellites cannot be had. */
  server?: string | undefined;
  /** For measuring throughput. It may be on its way, as the list of satellites. */
  token?: string | undefined | Promise<string | undefined>;
  note?: (text: string) => void;
  budgetMs?: number;
  /** Instead of the configured resolvers, as ADDRESS or ADDRESS:PORT. */
  dnsServers?: readonly string[] | undefined;
  /** Certificate authorities (PEM) to trust beside those of this process. */
  ca?: string;
  /** Where a captive portal is looked for; default 80. */
  httpPort?: number;
}

/**
 * Measures the connections to the server and its satellites within five seconds, and with `token` the throughput, one
 * satellite at a time. What has not ended by then is missing. `listed` may be on its way; what does not depend on it is
 * measured meanwhile. Rejects only when the signal is aborted; failures are part of the report.
 */
export async function netcheck(
  listed: readonly NetcheckSatellite[] | Promise<readonly NetcheckSatellite[]>,
  options: NetcheckOptions,
): Promise<NetcheckReport> {
  const began = performance.now();
  const deadline = AbortSignal.timeout(options.budgetMs ?? defaultBudgetMs);
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, deadline, failed.signal]);
  const within = { ...options, signal };
  const [server, [satellites, nat], [dns, mtu]] = await Promise.all([
    options.server === undefined ? null : checkEndpoint(options.server, within),
    Promise.resolve(listed).then((places) => checkSatellites(places, within)),
    options.server === undefined
      ? Promise.resolve(listed).then((places) => checkRoute(places, within))
      : checkRoute([{ url: options.server }], within),
  ]).finally(() => failed.abort());
  const token = await options.token;
  const complete = !deadline.aborted;
  const elapsedMs = round(performance.now() - began);
  for (const report of satellites) {
    if (token === undefined || report.https.error !== null) continue;
    options.signal.throwIfAborted();
    options.note?.(`measuring the throughput of ${report.name}`);
    report.throughput = await checkThroughput(report.url, token, options.signal);
  }
  options.signal.throwIfAborted();
  const endpoints = [...(server ? [server] : []), ...satellites.map(({ endpoint }) => endpoint)];
  return {
    complete,
    elapsedMs,
    udp: satellites.some(({ udp }) => udp.answered),
    nat,
    ipv4: anyOf(satellites, 'ipv4'),
    ipv6: anyOf(satellites, 'ipv6'),
    ipv6Address: hasIpv6(),
    proxy: configuredProxy(),
    dns,
    captivePortal: endpoints.find(({ portal }) => portal)?.portal ?? null,
    tlsInterception: interceptionOf(endpoints),
    clockAheadSeconds: clockOf(endpoints),
    mtu,
    server,
    satellites,
  };
}

async function checkSatellites(
  places: readonly NetcheckSatellite[],
  options: NetcheckOptions,
): Promise<[SatelliteReport[], NatKind]> {
  const { signal } = options;
  const [https, families, endpoints, udp] = await Promise.all([
    Promise.all(places.map(({ url }) => checkHttps(url, signal))),
    Promise.all(places.map(({ url }) => checkFamilies(url, signal))),
    Promise.all(places.map(({ url }) => checkEndpoint(url, options))),
    checkUdp(
      places.map(({ stun }) => stun),
      signal,
    ),
  ]);
  const reports = places.map(({ name, region, url }, i) => ({
    name,
    region,
    url,
    https: https[i]!,
    ...families[i]!,
    udp: udp.reports[i]!,
    endpoint: endpoints[i]!,
  }));
  return [reports, udp.nat];
}

function checkRoute(
  places: readonly { url: string }[],
  options: NetcheckOptions,
): Promise<[DnsReport, MtuReport]> {
  const { signal } = options;
  const urls = places.map(({ url }) => url);
  const none: MtuReport = { interfaceMtu: null, pathMtu: null, largePackets: null };
  return Promise.all([
    checkDns(urls, { signal, servers: options.dnsServers }),
    urls[0] === undefined ? none : checkMtu(urls[0], signal),
  ]);
}

function anyOf(satellites: readonly SatelliteReport[], family: 'ipv4' | 'ipv6'): boolean | null {
  const known = satellites.flatMap((each) => each[family] ?? []);
  return known.length === 0 ? null : known.includes(true);
}

/** Unique local addresses (fc00::/7) and link-local ones do not lead to the internet. */
function hasIpv6(): boolean {
  return Object.values(networkInterfaces()).some((all) =>
    all?.some(({ address, internal }) => !internal && isIPv6(address) && !/^(fe[89ab]|f[cd])/i.test(address)),
  );
}

function interceptionOf(endpoints: readonly EndpointReport[]): NetcheckReport['tlsInterception'] {
  const all = endpoints.flatMap(({ tls }) => tls ?? []);
  const found = all.find(({ intercepted }) => intercepted);
  if (found) return { intercepted: true, issuer: found.issuer };
  const unknown = all.find(({ intercepted }) => intercepted === null);
  if (unknown || all.length === 0) return { intercepted: null, issuer: unknown?.issuer ?? null };
  return { intercepted: false, issuer: null };
}

function clockOf(endpoints: readonly EndpointReport[]): number | null {
  const known = endpoints.flatMap(({ clockAheadSeconds }) => clockAheadSeconds ?? []);
  return known.length === 0 ? null : median(known);
}

async function checkHttps(url: string, signal: AbortSignal): Promise<SatelliteReport['https']> {
  const rtts: number[] = [];
  let agent: ReturnType<typeof makeProbeAgent> | undefined;
  try {
    const target = probeUrl(url);
    agent = makeProbeAgent(target);
    for (let i = 0; i < requests; i++) {
      const began = performance.now();
      await probeOnce(target, agent, signal);
      if (i > 0) rtts.push(performance.now() - began);
    }
  } catch (error) {
    if (rtts.length === 0)
      return { rttMs: null, leastMs: null, error: `${(error as Error).message}${proxyHint(url)}` };
  } finally {
    agent?.destroy();
  }
  return { rttMs: round(median(rtts)), leastMs: round(Math.min(...rtts)), error: null };
}

async function checkFamilies(
  url: string,
  signal: AbortSignal,
): Promise<Pick<SatelliteReport, 'ipv4' | 'ipv6'>> {
  const { protocol, hostname, port } = new URL(url);
  if (protocol === 'https:' && configuredProxy()) return { ipv4: null, ipv6: null };
  const host = hostname.replace(/^\[|\]$/g, '');
  const all = await lookupWithin(host, signal).catch(() => []);
  const one = async (family: number) => {
    const address = all.find((each) => isIPv6(each) === (family === 6));
    if (address === undefined) return null;
    return connects(address, Number(port || (protocol === 'https:' ? 443 : 80)));
  };
  const [ipv4, ipv6] = await Promise.all([one(4), one(6)]);
  return { ipv4, ipv6 };
}

function connects(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const settle = (isConnected: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(isConnected);
    };
    const timer = setTimeout(() => settle(false), connectMs);
    socket.once('connect', () => settle(true));
    socket.on('error', () => settle(false));
  });
}
