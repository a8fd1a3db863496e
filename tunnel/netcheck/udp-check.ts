import { randomBytes } from 'node:crypto';
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { formatAddress } from '@cde/api/host-port.ts';
import { lookupWithin } from './lookup.ts';
import { makeProbeClient } from './probe-train.ts';
import { bindingRequest, readMapped } from './stun.ts';

/** Probes per train, their distance, and how long to wait for answers after the last one. */
const trainLength = 20;
const trainEveryMs = 50;
const trainWaitMs = 1_000;
/** Requests are sent at these times until there is a response, and time out after that. */
const requestAtMs = [0, 300, 900];
const responseTimeoutMs = 2_000;

/** The result for one STUN server. */
export interface UdpReport {
  /** HOST:PORT of the server; null if the satellite has none. */
  stun: string | null;
  answered: boolean;
  /** Our address as the server sees it, HOST:PORT. */
  mapped: string | null;
  rttMs: number | null;
  train: { sent: number; received: number; lossPercent: number; rttMs: number; jitterMs: number } | null;
  error: string | null;
}

/**
 * `none`: our address is not translated. `endpoint-independent`: all servers see the same address and port, so peers can
 * reach us there. `endpoint-dependent`: each sees a different one, so peers hardly can. `unknown`: fewer than two servers
 * answered.
 */
export type NatKind = 'none' | 'endpoint-independent' | 'endpoint-dependent' | 'unknown';

/**
 * Queries STUN servers from one port, and sends each a train of 20 probes over one second. Never rejects; failures are
 * part of the report. Takes about four seconds.
 */
export async function checkUdp(
  servers: readonly (string | undefined)[],
  signal: AbortSignal,
): Promise<{ reports: UdpReport[]; nat: NatKind }> {
  const sockets = new Map<number, Promise<Socket>>();
  const socketOf = (family: number) => {
    const socket = sockets.get(family) ?? openSocket(family);
    sockets.set(family, socket);
    return socket;
  };
  const seen = new Map<string, string>();
  try {
    const reports = await Promise.all(servers.map((stun) => checkOne(stun, socketOf, seen, signal)));
    const ports = await Promise.all([...sockets.values()].map(async (one) => (await one).address().port));
    return { reports, nat: natKind(seen, ports) };
  } finally {
    for (const socket of sockets.values()) socket.then((one) => one.close()).catch(() => {});
  }
}

async function openSocket(family: number): Promise<Socket> {
  const socket = createSocket(family === 6 ? 'udp6' : 'udp4');
  // A failed send shows up as a missing answer.
  socket.on('error', () => {});
  socket.setMaxListeners(0);
  socket.bind(0);
  await once(socket, 'listening');
  return socket;
}

async function checkOne(
  stun: string | undefined,
  socketOf: (family: number) => Promise<Socket>,
  seen: Map<string, string>,
  signal: AbortSignal,
): Promise<UdpReport> {
  const report: UdpReport = {
    stun: stun ?? null,
    answered: false,
    mapped: null,
    rttMs: null,
    train: null,
    error: null,
  };
  if (stun === undefined)
    return { ...report, error: 'the satellite has no STUN server: UDP is disabled there' };
  const at = stun.lastIndexOf(':');
  const [host, port] = [stun.slice(0, at).replace(/^\[|\]$/g, ''), Number(stun.slice(at + 1))];
  try {
    const [address] = await lookupWithin(host, signal);
    if (address === undefined) throw new Error(`${host} has no address`);
    const socket = await socketOf(isIP(address));
    const transaction = randomBytes(12);
    const peer = { socket, address, port, signal };
    const began = performance.now();
    const mapped = await request(peer, bindingRequest(transaction), (datagram) =>
      readMapped(datagram, transaction),
    );
    if (!mapped)
      return {
        ...report,
        error: `no answer by UDP from ${stun} within ${responseTimeoutMs / 1000} s: UDP is blocked, or the port is not open`,
      };
    const rttMs = performance.now() - began;
    const mappedAddress = formatAddress(mapped.address, mapped.port);
    seen.set(formatAddress(address, port), mappedAddress);
    const train = await sendTrain(peer);
    return { ...report, answered: true, mapped: mappedAddress, rttMs: round(rttMs), ...train };
  } catch (error) {
    return { ...report, error: (error as Error).message };
  }
}

interface Peer {
  socket: Socket;
  address: string;
  port: number;
  signal: AbortSignal;
}

/** Subscribes to datagrams of this peer only. Returns a function that unsubscribes. */
function subscribe({ socket, address, port }: Peer, onDatagram: (datagram: Buffer) => void): () => void {
  const listen = (datagram: Buffer, from: RemoteInfo) => {
    if (from.port === port && from.address === address) onDatagram(datagram);
  };
  socket.on('message', listen);
  return () => socket.off('message', listen);
}

/** Sends a request, with retries, until `read` recognizes the response; null if there is none. */
async function request<T>(
  peer: Peer,
  message: Buffer,
  read: (datagram: Buffer) => T | null,
): Promise<T | null> {
  const done = new AbortController();
  const over = AbortSignal.any([done.signal, peer.signal]);
  let answer: T | null = null;
  const stop = subscribe(peer, (datagram) => {
    answer ??= read(datagram);
    if (answer !== null) done.abort();
  });
  let last = 0;
  for (const at of [...requestAtMs, responseTimeoutMs]) {
    await delay(at - last, undefined, { signal: over }).catch(() => {});
    if (over.aborted) break;
    last = at;
    if (at < responseTimeoutMs) peer.socket.send(message, peer.port, peer.address, () => {});
  }
  stop();
  return answer;
}

async function sendTrain(peer: Peer): Promise<Pick<UdpReport, 'train' | 'error'>> {
  const asker = makeProbeClient();
  const cookie = await request(peer, asker.hello(), asker.readCookie);
  if (!cookie)
    return {
      train: null,
      error: 'the satellite answers STUN but no probe trains: it is of an earlier release',
    };
  const sentAt: number[] = [];
  const rtts = new Map<number, number>();
  const all = new AbortController();
  const stop = subscribe(peer, (datagram) => {
    const number = asker.readEcho(datagram);
    const began = number === null ? undefined : sentAt[number];
    // Duplicates count once.
    if (number === null || began === undefined || rtts.has(number)) return;
    rtts.set(number, performance.now() - began);
    if (rtts.size === trainLength) all.abort();
  });
  const over = AbortSignal.any([all.signal, peer.signal]);
  for (let number = 0; number < trainLength && !peer.signal.aborted; number++) {
    sentAt.push(performance.now());
    peer.socket.send(asker.probe(number, cookie), peer.port, peer.address, () => {});
    await delay(trainEveryMs, undefined, { signal: peer.signal }).catch(() => {});
  }
  await delay(trainWaitMs, undefined, { signal: over }).catch(() => {});
  stop();
  const came = [...rtts].sort(([one], [other]) => one - other).map(([, rtt]) => rtt);
  const [sent, received] = [sentAt.length, came.length];
  if (received === 0) return { train: null, error: `none of ${sent} probes came back` };
  const steps = came.slice(1).map((rtt, i) => Math.abs(rtt - came[i]!));
  return {
    train: {
      sent,
      received,
      lossPercent: round((100 * (sent - received)) / sent),
      rttMs: round(median(came)),
      jitterMs: round(steps.length === 0 ? 0 : steps.reduce((sum, step) => sum + step, 0) / steps.length),
    },
    error: null,
  };
}

/** `seen`: our address as each server sees it. `ports`: our local ports. */
export function natKind(seen: ReadonlyMap<string, string>, ports: readonly number[]): NatKind {
  const own = Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address));
  const ours = new Set(own.flatMap((address) => ports.map((port) => formatAddress(address, port))));
  const mapped = [...seen.values()];
  if (mapped.length > 0 && mapped.every((place) => ours.has(place))) return 'none';
  const isSix = (place: string) => place.startsWith('[');
  for (const six of [false, true]) {
    const places = mapped.filter((place) => isSix(place) === six);
    if (new Set(places).size > 1) return 'endpoint-dependent';
    if (places.length > 1) return 'endpoint-independent';
  }
  return 'unknown';
}

/** Of an even number of values, the lower of the two in the middle. */
export const median = (values: readonly number[]): number =>
  [...values].sort((one, other) => one - other)[(values.length - 1) >> 1]!;
export const round = (value: number): number => Math.round(value * 100) / 100;
