import { connect, isIP, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TunnelError } from '../errors.ts';
import { pipeCoalesced } from './coalesce.ts';
import { connectDatagrams } from './datagrams.ts';

/**
 * What a stream leads to inside the workspace: the agent's SSH server, a TCP port, a UDP port (the stream then carries
 * framed datagrams), a Unix socket, or a folder that is kept in step (files/wire.ts).
 */
export type Target =
  | { kind: 'ssh' }
  | { kind: 'files' }
  | { kind: 'tcp'; host: string; port: number }
  | { kind: 'udp'; host: string; port: number }
  | { kind: 'unix'; path: string };

/** A target as it stands in the `cde-target` header: `ssh`, `files`, `tcp:HOST:PORT`, `udp:HOST:PORT`, `unix:PATH` (percent-encoded). */
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

/** Reads formatTarget's form; throws TunnelError `target-invalid`. */
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
    // Bad percent-encoding: invalid like the rest.
  }
  throw new TunnelError('target-invalid', JSON.stringify(text.slice(0, 100)));
}

function isHost(host: string): boolean {
  return isIP(host) !== 0 || /^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?$/.test(host);
}

/** How long a TCP connection inside a workspace may take: longer than one lost SYN, shorter than a person's patience. */
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
 * Connects to a TCP port or Unix socket on this machine, half-open, without Nagle's delay; or makes a socket that speaks
 * with a UDP port. Rejects with a
 * TunnelError `target-…`.
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
      // With several addresses for one name Node gives an AggregateError; the first tells as much as any.
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
 * Joins two streams both ways: an end passes on as a half-close; where one breaks off, the other is reset, so
 * that nobody takes a part for the whole. Resolves when both are closed.
 */
export function splice(a: Duplex, b: Duplex): Promise<void> {
  const pass = (from: Resettable, to: Resettable) =>
    new Promise<void>((resolve) => {
      if (to instanceof Socket) pipeCoalesced(from, to, { end: false });
      else from.pipe(to, { end: false });
      // HTTP/2 reports an end for a stream that was cut off as well.
      const ended = () => (from.aborted || from.rstCode ? reset(to) : to.end());
      // A stream that was opened and ended in one has reported it before anybody listened.
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

/** HTTP/2's code for "the connection behind this CONNECT was reset". */
const connectError = 0xa;

/** What an HTTP/2 stream has beyond a Duplex. */
type Resettable = Duplex & { close?: (code: number) => void; rstCode?: number; aborted?: boolean };

function reset(stream: Resettable): void {
  if (stream.destroyed) return;
  // Only TCP can be reset; for a Unix socket Node would throw.
  if (stream instanceof Socket && stream.remoteAddress) stream.resetAndDestroy();
  else if (stream.close && 'rstCode' in stream) stream.close(connectError);
  else stream.destroy();
}
