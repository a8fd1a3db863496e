import { lookup } from 'node:dns/promises';
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { TunnelError } from '../errors.ts';
import { configuredProxy, proxyAgent, proxyHint } from '../network/proxy.ts';
import { relayPaths } from '../paths/relay-protocol.ts';
import { probeOnce, probeUrl } from '../selection/measure.ts';
import { checkUdp, median, type NatKind, round, type UdpReport } from './udp-check.ts';

/** The first request includes connecting and does not count. */
const requests = 6;
const requestMs = 5_000;
const connectMs = 2_000;
/** Limits of one throughput test in one direction; the satellite enforces the same. */
const testBytes = 8 * 1024 * 1024;
const testMs = 3_000;
/** Pause between two tests. */
const pauseMs = 300;

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
  /** Only if it was requested. */
  throughput?: { downBitsPerSecond: number | null; upBitsPerSecond: number | null; error: string | null };
}

export interface NetcheckReport {
  /** True if any satellite answers by UDP. */
  udp: boolean;
  nat: NatKind;
  /** Whether any satellite is reachable this way; null if none has such an address. */
  ipv4: boolean | null;
  ipv6: boolean | null;
  /** The HTTPS proxy. */
  proxy: { variable: string; place: string } | null;
  satellites: SatelliteReport[];
}

/**
 * Measures the connections to satellites by HTTPS and UDP, and with `token` the throughput, one satellite at a time.
 * Rejects only when the signal is aborted; failures are part of the report.
 */
export async function netcheck(
  places: readonly NetcheckSatellite[],
  options: { signal: AbortSignal; token?: string | undefined; note?: (text: string) => void },
): Promise<NetcheckReport> {
  const { signal, token } = options;
  const [https, families, udp] = await Promise.all([
    Promise.all(places.map(({ url }) => checkHttps(url, signal))),
    Promise.all(places.map(({ url }) => checkFamilies(url))),
    checkUdp(
      places.map(({ stun }) => stun),
      signal,
    ),
  ]);
  const satellites: SatelliteReport[] = places.map(({ name, region, url }, i) => ({
    name,
    region,
    url,
    https: https[i]!,
    ...families[i]!,
    udp: udp.reports[i]!,
  }));
  for (const report of satellites) {
    if (token === undefined || report.https.error !== null) continue;
    signal.throwIfAborted();
    options.note?.(`measuring the throughput of ${report.name}`);
    report.throughput = await checkThroughput(report.url, token, signal);
  }
  signal.throwIfAborted();
  const any = (of: 'ipv4' | 'ipv6') => {
    const known = satellites.flatMap((each) => each[of] ?? []);
    return known.length === 0 ? null : known.includes(true);
  };
  return {
    udp: satellites.some(({ udp }) => udp.answered),
    nat: udp.nat,
    ipv4: any('ipv4'),
    ipv6: any('ipv6'),
    proxy: configuredProxy(),
    satellites,
  };
}

function agentFor(url: URL): HttpAgent {
  const kept = { keepAlive: true, maxSockets: 1 };
  return url.protocol === 'https:' ? (proxyAgent(kept) ?? new HttpsAgent(kept)) : new HttpAgent(kept);
}

async function checkHttps(url: string, signal: AbortSignal): Promise<SatelliteReport['https']> {
  const rtts: number[] = [];
  let agent: HttpAgent | undefined;
  try {
    const target = probeUrl(url);
    agent = agentFor(target);
    for (let i = 0; i < requests; i++) {
      const began = performance.now();
      await probeOnce(target, agent, AbortSignal.any([signal, AbortSignal.timeout(requestMs)]));
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

async function checkFamilies(url: string): Promise<Pick<SatelliteReport, 'ipv4' | 'ipv6'>> {
  const { protocol, hostname, port } = new URL(url);
  if (protocol === 'https:' && configuredProxy()) return { ipv4: null, ipv6: null };
  const host = hostname.replace(/^\[|\]$/g, '');
  const all = await lookup(host, { all: true }).catch(() => []);
  const one = async (family: number) => {
    const address = all.find((each) => each.family === family)?.address;
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

async function checkThroughput(
  url: string,
  token: string,
  signal: AbortSignal,
): Promise<NonNullable<SatelliteReport['throughput']>> {
  const result: NonNullable<SatelliteReport['throughput']> = {
    downBitsPerSecond: null,
    upBitsPerSecond: null,
    error: null,
  };
  try {
    result.downBitsPerSecond = await transfer(probeUrl(url, relayPaths.down), token, signal, 'down');
    // The satellite allows one test at a time, and may still be closing the previous one.
    await delay(pauseMs, undefined, { signal });
    result.upBitsPerSecond = await transfer(probeUrl(url, relayPaths.up), token, signal, 'up');
  } catch (error) {
    result.error = (error as Error).message;
  }
  return result;
}

/** Transfers up to 8 MiB or 3 s, and returns the rate in bits per second. */
function transfer(url: URL, token: string, signal: AbortSignal, way: 'down' | 'up'): Promise<number> {
  return new Promise((resolve, reject) => {
    const agent = agentFor(url);
    const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)(url, {
      agent,
      method: way === 'up' ? 'POST' : 'GET',
      signal: AbortSignal.any([signal, AbortSignal.timeout(testMs + requestMs)]),
      headers: {
        authorization: `Bearer ${token}`,
        ...(way === 'up' && { 'content-type': 'application/octet-stream' }),
      },
    });
    let began = performance.now();
    const done = (bytes: number) => {
      agent.destroy();
      if (bytes === 0) reject(new TunnelError('satellite-unreachable', 'no data was transferred'));
      else resolve(Math.round((bytes * 8) / (Math.max(performance.now() - began, 0.1) / 1_000)));
    };
    request.on('error', (error) => {
      agent.destroy();
      reject(new TunnelError('satellite-unreachable', `${error.message}${proxyHint(url.href)}`));
    });
    request.once('response', (response: IncomingMessage) => {
      if (response.statusCode !== 200) return void readRefusal(response).then(reject);
      if (way === 'up') return void readText(response).then((text) => done(takenOf(text)), reject);
      let bytes = 0;
      let over = false;
      const finish = () => {
        if (over) return;
        over = true;
        done(bytes);
      };
      began = performance.now();
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (performance.now() - began > testMs) finish();
      });
      response.once('end', finish);
      response.on('error', (error) => !over && reject(error));
    });
    if (way === 'down') return void request.end();
    const block = Buffer.alloc(64 * 1024);
    // Random, so that a proxy cannot compress it.
    crypto.getRandomValues(block);
    let sent = 0;
    const write = () => {
      while (sent < testBytes && performance.now() - began < testMs) {
        sent += block.length;
        if (!request.write(block)) return void request.once('drain', write);
      }
      request.end();
    };
    request.once('socket', (socket) => {
      const start = () => {
        began = performance.now();
        write();
      };
      if (socket.connecting) socket.once(url.protocol === 'https:' ? 'secureConnect' : 'connect', start);
      else start();
    });
  });
}

async function readText(response: IncomingMessage): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response) if (text.length < 65_536) text += chunk;
  return text;
}

function takenOf(text: string): number {
  const { bytes } = JSON.parse(text) as { bytes?: unknown };
  return typeof bytes === 'number' ? Math.min(bytes, testBytes) : 0;
}

async function readRefusal(response: IncomingMessage): Promise<TunnelError> {
  const text = await readText(response).catch(() => '');
  try {
    const { message, detail } = JSON.parse(text) as { message?: string; detail?: string };
    if (typeof message === 'string')
      return new TunnelError('satellite-refused', detail ? `${message}: ${detail}` : message);
  } catch {
    // Not our format.
  }
  return new TunnelError('satellite-refused', `HTTP status ${response.statusCode}`);
}
