import type { ClientHttp2Session } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { asTunnelError, TunnelError, type TunnelErrorCode } from '../errors.ts';
import type { Pipe } from '../pipe/pipe.ts';

export interface SessionEnd {
  /** `session-closed` after `close`, else the code of the error. */
  reason: TunnelErrorCode;
  error: TunnelError | null;
}

/** How a session ends: whichever of its layers fails first gives the reason, and takes the others with it. */
export class Lifetime {
  readonly closed: Promise<SessionEnd>;
  readonly #pipe: Pipe;
  readonly #h2: ClientHttp2Session;
  readonly #resolveClosed: (end: SessionEnd) => void;
  #end: SessionEnd | undefined;

  constructor(pipe: Pipe, socket: TLSSocket, h2: ClientHttp2Session) {
    this.#pipe = pipe;
    this.#h2 = h2;
    const { promise, resolve } = Promise.withResolvers<SessionEnd>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    const fail = (error?: Error) =>
      this.finish(asTunnelError(pipe.errored ?? error ?? new TunnelError('agent-closed'), 'session-failed'));
    pipe.on('error', fail);
    pipe.once('close', () => fail());
    pipe.once('end', () => fail());
    socket.on('error', fail);
    h2.on('error', fail);
    h2.once('close', () => fail());
  }

  /** Undefined while the session lasts. */
  get end(): SessionEnd | undefined {
    return this.#end;
  }

  readonly finish = (error: TunnelError | null): void => {
    if (this.#end) return;
    this.#end = { reason: error?.code ?? 'session-closed', error };
    // Both in this turn, before TLS notices, so that the agent and the streams get this error and not a derived one.
    this.#pipe.destroy(error ?? new TunnelError('session-closed'));
    if (error) this.#h2.destroy(error);
    else this.#h2.destroy();
    this.#resolveClosed(this.#end);
  };
}
