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
 * The client's side of a relay path. Resolves when the satellite admits the ticket. To save a round trip, a missing
 * agent is reported later, by the path's `closed` with `agent-not-connected`.
 */
export async function dialRelay(options: DialOptions): Promise<Path> {
  const socket = await openSocket(options.url, relayPaths.dial, options.ticket, options);
  return makeSocketPath(socket, { ...options, via: options.url });
}

export interface ListenOptions extends SocketTimes {
  /** The satellite, as AgentManifest names it. */
  url: string;
  /** Called before each connection; `stale` if the satellite refused the last token and a new one is needed. */
  listenToken: (options: { stale: boolean }) => Promise<string>;
  /** Called when a client has dialled. The path is not started yet. */
  onPath: (path: Path) => void;
  /** Sockets that wait for clients at the same time; default 1. More serve bursts of dials over long distances. */
  spares?: number;
  /** Called when the first spare is ready, and when none is left and the satellite cannot be reached. */
  onState?: (connected: boolean, reason: TunnelError | null) => void;
  /** Called when the round trip is first known, and after significant changes. */
  onRtt?: () => void;
  clock?: Clock;
  log?: Log;
}

export interface RelayListener {
  /** True while a spare waits at the satellite. */
  readonly connected: boolean;
  /** The recent round trip to the satellite in milliseconds; null until it is known. */
  readonly rttMs: number | null;
  /** Stops listening. Paths in use stay open. */
  close(): void;
}

/** A spare that lived this long was stable, so the next failure resets the backoff. */
const stableAfterMs = 10_000;

/** How often the round trip is measured; its median is over the last `maxRtts` samples. */
const measureEveryMs = 120_000;
const maxRtts = 5;
/** Samples taken without a pause at the start, so that there is a figure early. */
const initialRtts = 3;

/**
 * The agent's side: keeps spare sockets at the satellite until it is closed, and retries with backoff. Each spare serves
 * one client and is replaced once it is taken.
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
  let reportedRtt: number | null = null;
  const rtt = () =>
    rtts.length === 0 ? null : [...rtts].sort((one, other) => one - other)[rtts.length >> 1]!;

  /** Measures the round trip while the socket waits. */
  async function measure(socket: WebSocket, until: AbortSignal): Promise<void> {
    while (!until.aborted) {
      const ms = await pingSocket(socket, until);
      if (ms !== null && !until.aborted) {
        rtts = [...rtts, ms].slice(-maxRtts);
        const now = rtt()!;
        const isNews = reportedRtt === null || Math.abs(now - reportedRtt) > Math.max(1, reportedRtt / 10);
        if (rtts.length >= initialRtts && isNews) {
          reportedRtt = now;
          options.onRtt?.();
        }
      }
      if (rtts.length >= initialRtts || ms === null) await clock.sleep(measureEveryMs, until);
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
    let isSpare = true;
    const ended = new AbortController();
    void measure(socket, ended.signal);
    const leave = (reason: TunnelError | null) => {
      if (!isSpare) return;
      isSpare = false;
      ended.abort();
      // A spare taken by a client is no disconnect: the next one is being opened.
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
