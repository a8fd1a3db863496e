import { connect, isIP, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TunnelError } from '../errors.ts';
import { pipeCoalesced } from './coalesce.ts';
import { connectDatagrams } from './datagrams.ts';

/**
 * What a stream connects to inside the workspace: the agent's SSH server, a TCP port, a UDP port (the stream then carries
 * framed datagrams), a Unix socket, or a folder to synchronize (filesync/wire.ts).
 */
export type Target =
  | { kind: 'ssh' }
  | { kind: 'files' }
  | { kind: 'tcp'; host: string; port: number }
  | { kind: 'udp'; host: string; port: number }
  | { kind: 'unix'; path: string };

/** The `cde-target` header: `ssh`, `files`, `tcp:HOST:PORT`, `udp:HOST:PORT` or `unix:PATH` (percent-encoded). */
export function formatTarget(target: Target): string {
  switch (target.kind) {
    case 'ssh':
    case 'files':
      return target.kind;
    case 'tcp':
    case 'udp':
      return `${target.kind}:${encodeURIComponent(target.host)}:${target.port}`;
    case 'unix':
      return `unix:${encodeURIComponent(target.path)}`;
  }
}

/** Parses the output of formatTarget; throws TunnelError `target-invalid`. */
export function parseTarget(text: string): Target {
  try {
    if (text === 'ssh' || text === 'files') return { kind: text };
    const ip = /^(tcp|udp):([^:]{1,1000}):(\d{1,5})$/.exec(text);
    if (ip) {
      const host = decodeURIComponent(ip[2]!);
      const port = Number(ip[3]);
      if (port >= 1 && port <= 65535 && isHost(host)) return { kind: ip[1] as 'tcp' | 'udp', host, port };
    }
    const unix = /^unix:([^:]{1,1000})$/.exec(text);
    if (unix) {
      const path = decodeURIComponent(unix[1]!);
      if (path.startsWith('/') && !path.includes('\0')) return { kind: 'unix', path };
    }
  } catch {
    // Bad percent-encoding.
  }
  throw new TunnelError('target-invalid', JSON.stringify(text.slice(0, 100)));
}

function isHost(host: string): boolean {
  return isIP(host) !== 0 || /^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?$/.test(host);
}

/** Connect timeout inside a workspace: longer than one lost SYN, shorter than a user's patience. */
const connectTimeoutMs = 10_000;

const errorCodes: Record<
  string,
  'target-refused' | 'target-not-found' | 'target-timeout' | 'target-unreachable' | 'target-forbidden'
> = {
  ECONNREFUSED: 'target-refused',
  ENOENT: 'target-not-found',
  ENOTFOUND: 'target-not-found',
  EAI_AGAIN: 'target-not-found',
  ETIMEDOUT: 'target-timeout',
  EHOSTUNREACH: 'target-unreachable',
  ENETUNREACH: 'target-unreachable',
  EADDRNOTAVAIL: 'target-unreachable',
  EACCES: 'target-forbidden',
  EPERM: 'target-forbidden',
};

/**
 * Connects to a TCP port or Unix socket, half-open and without Nagle's delay, or creates a socket connected to a UDP
 * port. Rejects with a TunnelError `target-…`.
 */
export function connectTarget(
  target: Exclude<Target, { kind: 'ssh' }>,
  signal?: AbortSignal,
): Promise<Duplex> {
  if (target.kind === 'files')
    return Promise.reject(new TunnelError('target-invalid', 'only an agent serves files'));
  if (target.kind === 'udp') return connectDatagrams(target.host, target.port);
  return new Promise((resolve, reject) => {
    const where = target.kind === 'tcp' ? `${target.host} port ${target.port}` : target.path;
    const socket = connect({
      ...(target.kind === 'tcp' ? { host: target.host, port: target.port } : { path: target.path }),
      allowHalfOpen: true,
      noDelay: true,
      signal,
    });
    const timer = setTimeout(
      () => socket.destroy(new TunnelError('target-timeout', where)),
      connectTimeoutMs,
    );
    const fail = (error: NodeJS.ErrnoException & { errors?: NodeJS.ErrnoException[] }) => {
      clearTimeout(timer);
      if (error instanceof TunnelError) return reject(error);
      // For names with several addresses Node throws an AggregateError; the first error is as good as any.
      const code = error.code ?? error.errors?.[0]?.code ?? '';
      reject(new TunnelError(errorCodes[code] ?? 'target-failed', code ? `${where} (${code})` : where));
    };
    socket.once('error', fail);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', fail);
      resolve(socket);
    });
  });
}

/**
 * Connects two streams in both directions. An end is passed on as a half-close. If one breaks off, the other is reset, so
 * that truncated data is not mistaken for complete data. Resolves when both are closed.
 */
export function splice(a: Duplex, b: Duplex): Promise<void> {
  const pass = (from: Resettable, to: Resettable) =>
    new Promise<void>((resolve) => {
      if (to instanceof Socket) pipeCoalesced(from, to, { end: false });
      else from.pipe(to, { end: false });
      // HTTP/2 emits `end` for aborted streams as well.
      const ended = () => (from.aborted || from.rstCode ? reset(to) : to.end());
      // A stream that was opened and ended at once emitted `end` before anyone listened.
      if (from.readableEnded) ended();
      else from.once('end', ended);
      from.on('error', () => {});
      from.once('close', () => {
        if (!from.readableEnded || !to.readableEnded) reset(to);
        resolve();
      });
    });
  return Promise.all([pass(a, b), pass(b, a)]).then(() => {});
}

/** HTTP/2 CONNECT_ERROR: the connection behind this CONNECT was reset. */
const connectError = 0xa;

/** An HTTP/2 stream's additions to Duplex. */
type Resettable = Duplex & { close?: (code: number) => void; rstCode?: number; aborted?: boolean };

function reset(stream: Resettable): void {
  if (stream.destroyed) return;
  // Node throws when resetting a Unix socket.
  if (stream instanceof Socket && stream.remoteAddress) stream.resetAndDestroy();
  else if (stream.close && 'rstCode' in stream) stream.close(connectError);
  else stream.destroy();
}
