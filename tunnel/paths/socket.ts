import { randomBytes } from 'node:crypto';
import WebSocket, { type ClientOptions } from 'ws';
import { isTunnelErrorCode, TunnelError, type TunnelErrorCode } from '../errors.ts';
import { dialAgent } from '../network/gateway.ts';
import { watchLocalAddress } from '../network/local-address.ts';
import { proxyHint } from '../network/proxy.ts';
import { limitControlFrames } from '../network/socket-limits.ts';
import type { Path, PathEvents } from '../pipe/path.ts';
import { keepAlive, noteAlive, noteSent } from './heartbeat.ts';
import { deadAfterMs, heartbeatMs, maxRelayMessage, relayCloseCodes } from './relay-protocol.ts';

export interface SocketTimes {
  /** Timeout for TCP, TLS and the upgrade together; default 10 s. */
  connectTimeoutMs?: number;
  heartbeatMs?: number;
  deadAfterMs?: number;
}

/** The WebSocket URL of a satellite's endpoint. The satellite's URL may be http(s) or ws(s), with a path. */
function relayUrl(satellite: string, path: string): string {
  let url: URL;
  try {
    url = new URL(satellite);
  } catch {
    throw new TunnelError('satellite-unreachable', `${JSON.stringify(satellite)} is not a URL`);
  }
  url.protocol = url.protocol === 'https:' || url.protocol === 'wss:' ? 'wss:' : 'ws:';
  url.pathname = url.pathname.replace(/\/+$/, '') + path;
  url.search = '';
  url.hash = '';
  return url.href;
}

/** Local addresses of the sockets that we opened. */
const localAddresses = new WeakMap<WebSocket, string>();

/**
 * Connects to a satellite. Rejects with `satellite-unreachable`, or with the code of the refusal (`ticket-expired`,
 * `satellite-draining`, …; `satellite-refused` if the code is unknown).
 */
export function openSocket(
  satellite: string,
  path: string,
  token: string,
  options: SocketTimes & { signal?: AbortSignal },
): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    options.signal?.throwIfAborted();
    // @types/ws does not know closeTimeout yet.
    const settings: ClientOptions & { closeTimeout: number } = {
      headers: { authorization: `Bearer ${token}` },
      perMessageDeflate: false,
      maxPayload: maxRelayMessage,
      // The same limits as the satellite (satellite/relay/plugin.ts).
      maxFragments: 32,
      maxBufferedChunks: 4096,
      handshakeTimeout: options.connectTimeoutMs ?? 10_000,
      followRedirects: false,
      // A random mask costs a quarter of the throughput, a zero mask nothing. Masks keep a hostile page from choosing
      // what a proxy sees on the wire (RFC 6455 §10.3); we send our own headers and TLS records, which outsiders
      // cannot choose.
      generateMask: (mask) => mask.fill(0),
      // A satellite answers a close immediately or is gone; the default of 30 s would delay the end of the process.
      closeTimeout: 3_000,
    };
    const url = relayUrl(satellite, path);
    let socket: WebSocket;
    try {
      socket = new WebSocket(url, { ...settings, agent: dialAgent(url.startsWith('wss:')) });
    } catch (error) {
      throw new TunnelError('satellite-unreachable', (error as Error).message);
    }
    const abort = () => fail(new TunnelError('session-aborted'));
    const fail = (error: TunnelError) => {
      options.signal?.removeEventListener('abort', abort);
      socket.terminate();
      reject(error);
    };
    options.signal?.addEventListener('abort', abort, { once: true });
    // `on`, not `once`: terminate() before the open emits another error.
    socket.on('error', (error) => fail(new TunnelError('satellite-unreachable', reasonOf(error, satellite))));
    socket.once('unexpected-response', (_request, response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => {
        if (body.length < 65536) body += text;
      });
      response.once('close', () => fail(refusal(response.statusCode ?? 0, body)));
    });
    socket.once('upgrade', ({ socket: { localAddress } }) => {
      if (localAddress) localAddresses.set(socket, localAddress);
    });
    socket.once('open', () => {
      options.signal?.removeEventListener('abort', abort);
      socket.removeAllListeners('error');
      limitControlFrames(socket);
      // Paused until makeSocketPath listens, because a message may have arrived with the response to the upgrade.
      socket.pause();
      resolve(socket);
    });
  });
}

function reasonOf(error: Error & { code?: string; errors?: Error[] }, satellite: string): string {
  const message = error.message || error.errors?.[0]?.message || error.code || 'no reason given';
  return `${new URL(satellite).host}: ${message}${proxyHint(satellite)}`;
}

function refusal(status: number, body: string): TunnelError {
  try {
    const { code, message, detail } = JSON.parse(body) as Record<string, unknown>;
    if (typeof code === 'string' && isTunnelErrorCode(code)) {
      return new TunnelError(code, typeof detail === 'string' ? detail : undefined);
    }
    if (typeof message === 'string') return new TunnelError('satellite-refused', `${status}: ${message}`);
  } catch {
    // Not our format: a proxy's error page, for example.
  }
  return new TunnelError('satellite-refused', `HTTP status ${status}`);
}

/**
 * Buffered bytes beyond which a path's sender waits (256 KiB is 2 ms at 1 Gbit/s; the kernel buffers more). Low on
 * purpose: this data is sent before any keystroke that follows.
 */
const sendHigh = 256 * 1024;
const sendLow = 64 * 1024;

/** A satellite sends one when a client has dialled; the rest is headroom for later releases. */
const maxTexts = 100;

/**
 * A path over an open WebSocket. `onText` receives the satellite's text messages. `onClosed` is called at the end, with
 * or without a pipe on top.
 */
export function makeSocketPath(
  socket: WebSocket,
  options: SocketTimes & {
    via: string;
    onText?: (text: string) => void;
    onClosed?: (error: TunnelError | null) => void;
  },
): Path {
  let events: PathEvents | undefined;
  const early: Buffer[] = [];
  let ended: { error: TunnelError | null } | undefined;
  let broken: TunnelError | undefined;
  let closing = false;
  let paused = false;
  let waiting = false;
  let texts = 0;

  const lost = (code: TunnelErrorCode, detail?: string) => {
    broken ??= new TunnelError(code, detail);
    socket.terminate();
  };
  const stopKeepAlive = keepAlive(socket, {
    intervalMs: options.heartbeatMs ?? heartbeatMs,
    deadAfterMs: options.deadAfterMs ?? deadAfterMs,
    dead: () => lost('satellite-lost', 'no sign of life'),
  });
  const stopWatch = watchLocalAddress(localAddresses.get(socket), () =>
    lost('satellite-lost', 'this machine changed its network'),
  );

  socket.on('message', (data, isBinary) => {
    if (closing || broken) return;
    const chunk = data as Buffer;
    if (!isBinary) {
      texts += 1;
      if (texts > maxTexts) lost('satellite-lost', 'it sent too many text messages');
      else options.onText?.(String(data));
      return;
    }
    if (chunk.length === 0) return lost('satellite-lost', 'it sent an empty message');
    if (events) events.data(chunk);
    else {
      early.push(chunk);
      socket.pause();
    }
  });
  socket.on('error', (error) => {
    broken ??= new TunnelError('satellite-lost', error.message);
  });
  socket.once('close', (code, reason) => {
    stopKeepAlive();
    stopWatch();
    ended = { error: closing ? null : (broken ?? closeError(code, reason.toString())) };
    options.onClosed?.(ended.error);
    events?.closed(ended.error);
  });

  socket.resume();

  const flushed = () => {
    if (!waiting || socket.bufferedAmount > sendLow) return;
    waiting = false;
    events?.drain();
  };

  return {
    kind: 'relay',
    via: options.via,
    start(handlers) {
      events = handlers;
      for (const chunk of early.splice(0)) events.data(chunk);
      if (ended) events.closed(ended.error);
      else if (!paused) socket.resume();
    },
    send(chunk) {
      socket.send(chunk, flushed);
      noteSent(socket);
      if (socket.bufferedAmount < sendHigh) return true;
      waiting = true;
      return false;
    },
    pause() {
      if (paused) return;
      paused = true;
      socket.pause();
    },
    resume() {
      if (!paused) return;
      paused = false;
      socket.resume();
    },
    measureLeg: (signal) => pingSocket(socket, signal),
    close() {
      if (closing) return;
      closing = true;
      socket.close(1000);
      // Unread data would hide the answer to the close.
      socket.resume();
    },
  };
}

const pingTimeoutMs = 10_000;

/** Measures the round trip in milliseconds; null if there is no answer. Heartbeats do not count as answers. */
export function pingSocket(socket: WebSocket, signal: AbortSignal): Promise<number | null> {
  return new Promise((resolve) => {
    if (signal.aborted || socket.readyState !== socket.OPEN) return resolve(null);
    const mark = randomBytes(8);
    const began = performance.now();
    const settle = (ms: number | null) => {
      clearTimeout(timer);
      socket.off('pong', answered);
      signal.removeEventListener('abort', none);
      resolve(ms);
    };
    const answered = (data: Buffer) => mark.equals(data) && settle(performance.now() - began);
    const none = () => settle(null);
    const timer = setTimeout(none, pingTimeoutMs);
    timer.unref();
    socket.on('pong', answered);
    signal.addEventListener('abort', none, { once: true });
    socket.ping(mark, undefined, (error) => error && none());
    noteAlive(socket);
  });
}

function closeError(code: number, reason: string): TunnelError | null {
  if (code === 1000) return null;
  // Sent by servers and proxies that are being stopped and do not know about relays.
  if (code === 1001 || code === 1005) return new TunnelError('satellite-restarted');
  const known = relayCloseCodes[code as keyof typeof relayCloseCodes];
  if (known) return new TunnelError(known);
  return new TunnelError(
    'satellite-lost',
    reason ? `${code} ${reason}` : code === 1006 ? undefined : `${code}`,
  );
}
