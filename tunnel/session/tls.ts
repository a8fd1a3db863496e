import { connect, type TLSSocket } from 'node:tls';
import { alpn } from '../auth/handshake.ts';
import { fingerprint } from '../auth/keys.ts';
import { asTunnelError, TunnelError } from '../errors.ts';
import type { Pipe } from '../pipe/pipe.ts';

/**
 * Connects TLS 1.3 over the pipe and verifies the agent's pinned key. Nothing is sent before the agent has proved that
 * it holds the key.
 */
export function connectTls(
  pipe: Pipe,
  options: { agentKey: string; signal?: AbortSignal; handshakeTimeoutMs?: number },
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    options.signal?.throwIfAborted();
    const socket = connect({
      socket: pipe,
      ALPNProtocols: [alpn],
      minVersion: 'TLSv1.3',
      maxVersion: 'TLSv1.3',
      // The certificate is self-signed by design. Its key is compared below, before anything is written.
      rejectUnauthorized: false,
    });
    const settle = (error: TunnelError | null) => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', abort);
      for (const emitter of [pipe, socket]) {
        emitter.off('error', fail);
        emitter.off('close', close);
      }
      if (!error) return resolve(socket);
      socket.on('error', () => {});
      reject(error);
    };
    // The pipe's own error says more than the one TLS derives from it, and is set first or in the same turn.
    const fail = (error: Error) =>
      queueMicrotask(() => settle(asTunnelError(pipe.errored ?? error, 'session-failed')));
    const close = () => fail(new TunnelError('pipe-closed'));
    const abort = () => settle(new TunnelError('session-aborted'));
    const timer = setTimeout(
      () => settle(new TunnelError('session-timeout')),
      options.handshakeTimeoutMs ?? 10_000,
    );
    options.signal?.addEventListener('abort', abort, { once: true });
    for (const emitter of [pipe, socket]) {
      emitter.on('error', fail);
      emitter.on('close', close);
    }
    socket.once('secureConnect', () => {
      const key = socket.getPeerX509Certificate()?.publicKey;
      if (!key || fingerprint(key) !== options.agentKey) return settle(new TunnelError('agent-key-mismatch'));
      if (socket.alpnProtocol !== alpn)
        return settle(new TunnelError('session-failed', 'no common protocol'));
      settle(null);
    });
  });
}
