import { connect, createServer, type Server, type Socket } from 'node:net';
import { formatAddress } from '@cde/api/host-port.ts';
import { TunnelError } from '../errors.ts';
import { type Log, silentLog } from '../log.ts';
import { lookupAllowed } from '../network/addresses.ts';
import { watchLocalAddress } from '../network/local-address.ts';
import type { Path, PathEvents } from '../pipe/path.ts';
import { type DirectTimes, watchLiveness } from './liveness.ts';

/** Low on purpose, as for a relay's socket: buffered data is sent before any keystroke that follows. */
const sendHigh = 256 * 1024;
const sendLow = 64 * 1024;
/** How long the peer may take to close its side. */
const closeTimeoutMs = 3_000;

/**
 * A path without a satellite: a TCP connection to one of the agent's own addresses, with the same frames and the same
 * TLS inside as a relay. Takes a connected socket, which stays paused until `start`.
 */
function makeTcpPath(socket: Socket, options: DirectTimes & { via: string }): Path {
  let events: PathEvents | undefined;
  let broken: TunnelError | undefined;
  let closing = false;
  let ended: { error: TunnelError | null } | undefined;
  let paused = false;
  let waiting = false;

  const life = watchLiveness({
    ...options,
    idle: () => !closing && socket.writable && socket.writableLength === 0,
    beat: (frame) => socket.write(frame),
    lost(why) {
      broken ??= new TunnelError('path-lost', why);
      socket.destroy();
    },
  });

  const stopWatch = watchLocalAddress(socket.localAddress, () => {
    broken ??= new TunnelError('path-lost', 'this machine changed its network');
    socket.destroy();
  });

  socket.pause();
  socket.setNoDelay(true);
  socket.on('data', (chunk: Buffer) => {
    life.heard(chunk);
    if (!closing) events?.data(chunk);
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    broken ??= new TunnelError('path-lost', error.code ?? error.message);
  });
  socket.once('close', () => {
    life.stop();
    stopWatch();
    ended = { error: closing ? null : (broken ?? null) };
    events?.closed(ended.error);
  });

  const flushed = () => {
    if (!waiting || socket.writableLength > sendLow) return;
    waiting = false;
    events?.drain();
  };

  return {
    kind: 'direct-tcp',
    via: options.via,
    start(handlers) {
      events = handlers;
      if (ended) events.closed(ended.error);
      else if (!paused) socket.resume();
    },
    send(chunk) {
      if (!socket.writable) return true;
      life.sent();
      socket.write(chunk, flushed);
      if (socket.writableLength < sendHigh) return true;
      waiting = true;
      return false;
    },
    pause() {
      paused = true;
      life.pause(true);
      socket.pause();
    },
    resume() {
      if (!paused) return;
      paused = false;
      life.pause(false);
      if (events) socket.resume();
    },
    close() {
      if (closing) return;
      closing = true;
      socket.end();
      // Unread data would hide the end of the stream.
      socket.resume();
      setTimeout(() => socket.destroy(), closeTimeoutMs).unref();
    },
  };
}

/** Connects to one of the agent's addresses. Rejects with `path-unreachable`. */
export function dialDirect(
  options: DirectTimes & { host: string; port: number; timeoutMs: number; signal: AbortSignal },
): Promise<Path> {
  return new Promise((resolve, reject) => {
    const via = formatAddress(options.host, options.port);
    if (options.signal.aborted) return reject(new TunnelError('session-aborted'));
    const socket = connect({
      host: options.host,
      port: options.port,
      noDelay: true,
      // Agents may offer host names.
      lookup: lookupAllowed,
    });
    const settle = () => {
      clearTimeout(timer);
      options.signal.removeEventListener('abort', abort);
    };
    const fail = (error: TunnelError) => {
      settle();
      socket.destroy();
      reject(error);
    };
    const abort = () => fail(new TunnelError('session-aborted'));
    const timer = setTimeout(
      () => fail(new TunnelError('path-unreachable', `${via}: no answer within ${options.timeoutMs} ms`)),
      options.timeoutMs,
    );
    options.signal.addEventListener('abort', abort, { once: true });
    // `on`, not `once`: destroying the socket may emit another error.
    socket.on('error', (error: NodeJS.ErrnoException) =>
      fail(new TunnelError('path-unreachable', `${via}: ${reasonOf(error)}`)),
    );
    socket.once('connect', () => {
      settle();
      socket.removeAllListeners('error');
      resolve(makeTcpPath(socket, { ...options, via }));
    });
  });
}

function reasonOf(error: NodeJS.ErrnoException & { errors?: NodeJS.ErrnoException[] }): string {
  const code = error.code ?? error.errors?.[0]?.code;
  switch (code) {
    case 'ECONNREFUSED':
      return 'connection refused';
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return 'no route to the host';
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'unknown host name';
    default:
      return code ?? error.message;
  }
}

export interface DirectListener {
  readonly port: number;
  /** Stops listening and drops unauthenticated connections. Paths in use stay open. */
  close(): void;
}

/** Connections whose client is not authenticated yet, in total and per address. */
const maxUnauthenticated = 64;
const maxUnauthenticatedPerAddress = 8;
const maxConnections = 1024;

/**
 * The agent's side: listens for clients that want to resume a session. `onPath` receives each connection and a function
 * to call once its client is authenticated. Unauthenticated connections are subject to strict limits, beyond which they
 * are closed without a response. Rejects if listening fails.
 */
export async function listenDirect(
  options: DirectTimes & {
    host: string;
    port: number;
    onPath: (path: Path, onAuthenticated: () => void) => void;
    log?: Log;
  },
): Promise<DirectListener> {
  const { log = silentLog } = options;
  const unauthenticated = new Map<Socket, string>();
  const perAddress = new Map<string, number>();

  function forget(socket: Socket): void {
    const address = unauthenticated.get(socket);
    if (address === undefined) return;
    unauthenticated.delete(socket);
    const left = perAddress.get(address)! - 1;
    if (left === 0) perAddress.delete(address);
    else perAddress.set(address, left);
  }

  const server: Server = createServer({ noDelay: true, pauseOnConnect: true }, (socket) => {
    const address = socket.remoteAddress ?? '';
    const others = perAddress.get(address) ?? 0;
    if (unauthenticated.size >= maxUnauthenticated || others >= maxUnauthenticatedPerAddress) {
      log.debug({ address }, 'direct connection rejected: too many unauthenticated ones');
      socket.on('error', () => {});
      socket.destroy();
      return;
    }
    unauthenticated.set(socket, address);
    perAddress.set(address, others + 1);
    socket.once('close', () => forget(socket));
    const via = formatAddress(address.replace(/^::ffff:/, ''), socket.remotePort ?? 0);
    options.onPath(makeTcpPath(socket, { ...options, via }), () => forget(socket));
  });
  server.maxConnections = maxConnections;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => {
      server.off('error', reject);
      server.on('error', (error) => log.warn({ error: error.message }, 'direct listener'));
      resolve();
    });
  });
  const { port } = server.address() as { port: number };
  return {
    port,
    close() {
      server.close();
      for (const socket of unauthenticated.keys()) socket.destroy();
    },
  };
}
