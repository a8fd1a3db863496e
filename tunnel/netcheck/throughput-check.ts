import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import { TunnelError } from '../errors.ts';
import { proxyHint } from '../network/proxy.ts';
import { relayPaths } from '../paths/relay-protocol.ts';
import { probeUrl } from '../selection/measure.ts';
import { makeProbeAgent } from './probe-request.ts';

/** How long to connect, beyond the time of a test. */
const connectMs = 5_000;
/** Limits of one throughput test in one direction; the satellite enforces the same. */
const testBytes = 8 * 1024 * 1024;
const testMs = 3_000;
/** Pause between two tests. */
const pauseMs = 300;

export interface Throughput {
  downBitsPerSecond: number | null;
  upBitsPerSecond: number | null;
  error: string | null;
}

/** Measures both directions between this process and a satellite, with a probe token. Never rejects. */
export async function checkThroughput(url: string, token: string, signal: AbortSignal): Promise<Throughput> {
  const result: Throughput = {
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
    const agent = makeProbeAgent(url);
    const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)(url, {
      agent,
      method: way === 'up' ? 'POST' : 'GET',
      signal: AbortSignal.any([signal, AbortSignal.timeout(testMs + connectMs)]),
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
