import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { relayPaths } from '../paths/relay-protocol.ts';
import { probeUrl } from '../selection/measure.ts';
import { makeProbeAgent, sendProbe } from './probe-request.ts';

export interface MtuReport {
  /** Of the interface that leads there, in bytes. Null if unknown. */
  interfaceMtu: number | null;
  /** What the kernel knows of the whole path (Linux, `ss`). Null if unknown. */
  pathMtu: number | null;
  /** False if small requests are answered and large ones are not: full packets are lost on the way. */
  largePackets: boolean | null;
}

/** More than two full packets of any usual MTU, and less than any server's limit of a head. */
const paddingBytes = 4_000;
/** A large request is answered as fast as a small one, unless its packets are lost. */
const defaultMinWaitMs = 1_500;
const waitFactor = 6;

/**
 * Compares a small and a large request on one connection, and asks the kernel for the MTU of its path. Never rejects.
 * Nothing is known through a proxy, which has a connection of its own.
 */
export async function checkMtu(
  url: string,
  signal: AbortSignal,
  minWaitMs = defaultMinWaitMs,
): Promise<MtuReport> {
  const report: MtuReport = { interfaceMtu: null, pathMtu: null, largePackets: null };
  const target = probeUrl(url, relayPaths.probe);
  const agent = makeProbeAgent(target, { rejectUnauthorized: false });
  try {
    const send = (headers: Record<string, string>, within: AbortSignal) =>
      sendProbe(target, { agent, signal: within, headers, rejectUnauthorized: false });
    const { socket, rttMs } = await send({}, signal);
    report.interfaceMtu = await interfaceMtu(socket.localAddress);
    const { localPort, remotePort } = socket;
    const waitMs = Math.max(minWaitMs, waitFactor * rttMs);
    const timeout = AbortSignal.timeout(waitMs);
    try {
      await send({ 'cde-padding': 'x'.repeat(paddingBytes) }, AbortSignal.any([signal, timeout]));
      report.largePackets = true;
    } catch {
      // Not if everything has become slow or has stopped.
      if (timeout.aborted && (await send({}, signal)).rttMs < waitMs) report.largePackets = false;
    }
    report.pathMtu = await pathMtu(localPort, remotePort, socket);
  } catch {
    // It does not answer at all, which is reported elsewhere.
  } finally {
    agent.destroy();
  }
  return report;
}

async function interfaceMtu(address: string | undefined): Promise<number | null> {
  const local = address?.replace(/^::ffff:/, '');
  const name = Object.entries(networkInterfaces()).find(([, all]) =>
    all?.some((each) => each.address === local),
  )?.[0];
  if (name === undefined) return null;
  const text = await readFile(`/sys/class/net/${name}/mtu`, 'utf8').catch(() => '');
  return Number.parseInt(text, 10) || null;
}

/** Reads `pmtu:1500` of our own connection. */
function pathMtu(
  local: number | undefined,
  remote: number | undefined,
  { destroyed }: Socket,
): Promise<number | null> {
  if (process.platform !== 'linux' || local === undefined || remote === undefined || destroyed)
    return Promise.resolve(null);
  const filter = `sport = :${local} and dport = :${remote}`;
  return new Promise((resolve) => {
    execFile('ss', ['-tinH', filter], { timeout: 1_000 }, (error, stdout) =>
      resolve(error ? null : Number(/\bpmtu:(\d+)/.exec(stdout)?.[1]) || null),
    );
  });
}
