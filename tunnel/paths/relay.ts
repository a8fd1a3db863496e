import type WebSocket from 'ws';
import { backoff, type Clock, systemClock } from '../clock.ts';
import { asTunnelError, type TunnelError } from '../errors.ts';
import { type Log, silentLog } from '../log.ts';
import type { Path } from '../pipe/path.ts';
import { dialedMessage, relayPaths } from './relay-protocol.ts';
import { makeSocketPath, openSocket, pingSocket, type SocketTimes } from './socket.ts';

export interface DialOptions extends SocketTimes {
  /** The satellite, as TicketReply names it. */
  url: string;
  ticket: string;
  signal?: AbortSignal;
}

/**
 * The client's side of a relay path. Resolves when the satellite admits the ticket; that the agent is not
 * connected comes later, as the path's `closed` with `agent-not-connected`, so as to spare a round trip.
 */
export async function dialRelay(options: DialOptions): Promise<Path> {
  const socket = await openSocket(options.url, relayPaths.dial, options.ticket, options);
  return makeSocketPath(socket, { ...options, via: options.url });
}

export interface ListenOptions extends SocketTimes {
  /** The satellite, as AgentManifest names it. */
  url: string;
  /** Asked before each connection; `stale` when the satellite refused the last one: get a new one. */
  listenToken: (options: { stale: boolean }) => Promise<string>;
  /** A client dialled: make a pipe of the path. Its `start` has not been called. */
  onPath: (path: Path) => void;
  /** How many sockets wait for clients at the same time; default 1. More serve bursts of dials over distance. */
  spares?: number;
  /** Told when a first spare waits, and when none does and the satellite cannot be had, with the reason. */
  onState?: (connected: boolean, reason: TunnelError | null) => void;
  /** Told when the round trip is known, and when it has changed by more than chance does. */
  onRtt?: () => void;
  clock?: Clock;
  log?: Log;
}

export interface RelayListener {
  /** True while a spare waits at the satellite. */
  readonly connected: boolean;
  /** The round trip to the satellite in milliseconds, as of late; null before it is known. */
  readonly rttMs: number | null;
  /** Stops listening; paths that clients use go on. */
  close(): void;
}

/** A spare that lived this long proves that the way is good: the next failure starts the backoff anew. */
const stableAfterMs = 10_000;

/** How often the round trip is measured, and how many of the last samples count. */
const measureEveryMs = 120_000;
const keptRtts = 5;
/** At once, so that there is a figure before the first minute is over. */
const firstRtts = 3;

/**
 * The agent's side: keeps spare sockets at the satellite, for ever, with backoff, until closed. Each serves
 * one client and is replaced as soon as it is taken.
 */
export function listenRelay(options: ListenOptions): RelayListener {
  const { url, clock = systemClock, log = silentLog } = options;
  const stop = new AbortController();
  let waiting = 0;
  let reported = false;
  const report = (connected: boolean, reason: TunnelError | null) => {
    if (connected === reported) return;
    reported = connected;
    options.onState?.(connected, reason);
  };
  let rtts: number[] = [];
  let told: number | null = null;
  const rtt = () =>
    rtts.length === 0 ? null : [...rtts].sort((one, other) => one - other)[rtts.length >> 1]!;

  /** Measures while the socket waits; several that wait take turns by chance. */
  async function measure(socket: WebSocket, until: AbortSignal): Promise<void> {
    while (!until.aborted) {
      const ms = await pingSocket(socket, until);
      if (ms !== null && !until.aborted) {
        rtts = [...rtts, ms].slice(-keptRtts);
        const now = rtt()!;
        if (rtts.length >= firstRtts && (told === null || Math.abs(now - told) > Math.max(1, told / 10))) {
          told = now;
          options.onRtt?.();
        }
      }
      if (rtts.length >= firstRtts || ms === null) await clock.sleep(measureEveryMs, until);
    }
  }

  for (let slot = 0; slot < (options.spares ?? 1); slot++) void keepSpare();

  async function keepSpare(): Promise<void> {
    let failures = 0;
    let stale = false;
    while (!stop.signal.aborted) {
      const startedAt = clock.now();
      try {
        const token = await options.listenToken({ stale });
        stale = false;
        options.onPath(await waitForDial(token));
        failures = 0;
      } catch (thrown) {
        if (stop.signal.aborted) return;
        const error = asTunnelError(thrown, 'satellite-lost');
        if (waiting === 0) report(false, error);
        stale = error.code === 'listen-token-expired' || error.code === 'listen-token-invalid';
        failures = clock.now() - startedAt > stableAfterMs ? 1 : failures + 1;
        const ms = backoff(failures, clock.random);
        log.info(
          { url, code: error.code, detail: error.detail, retryMs: Math.round(ms) },
          'relay not connected',
        );
        await clock.sleep(ms, stop.signal);
      }
    }
  }

  async function waitForDial(token: string): Promise<Path> {
    const socket = await openSocket(url, relayPaths.listen, token, { ...options, signal: stop.signal });
    let left = false;
    const waits = new AbortController();
    void measure(socket, waits.signal);
    const leave = (reason: TunnelError | null) => {
      if (left) return;
      left = true;
      waits.abort();
      // Taken by a client is not gone: the next spare is under way.
      if (--waiting === 0 && reason && !stop.signal.aborted) report(false, reason);
    };
    waiting++;
    report(true, null);
    return new Promise((resolve, reject) => {
      const close = () => path.close();
      const path = makeSocketPath(socket, {
        ...options,
        via: url,
        onText(text) {
          if (text !== dialedMessage) return;
          stop.signal.removeEventListener('abort', close);
          leave(null);
          resolve(path);
        },
        onClosed(error) {
          stop.signal.removeEventListener('abort', close);
          const reason = asTunnelError(error ?? 'closed by the satellite', 'satellite-lost');
          leave(reason);
          reject(reason);
        },
      });
      stop.signal.addEventListener('abort', close, { once: true });
    });
  }

  return {
    get connected() {
      return waiting > 0;
    },
    get rttMs() {
      return rtt();
    },
    close: () => stop.abort(),
  };
}
