import { createHash, type KeyObject, sign, verify } from 'node:crypto';
import type { ClientHttp2Stream, IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { isTunnelErrorCode, TunnelError, type TunnelErrorCode } from '../errors.ts';
import { importPublicKey } from './keys.ts';

/** What client (session.ts) and agent (host.ts) agree on inside TLS. README.md tells the sequence. */
export const alpn = 'h2';
export const helloPath = '/v1/hello';
/** The agent's offers of other paths: lines for as long as the session lasts. */
export const offersPath = '/v1/offers';
/** Finding a path by UDP: what both ends say of their addresses (ice.ts), for as long as an attempt takes. */
export const icePath = '/v1/direct-udp';
export const proofHeader = 'cde-proof';
/** The agent's name for the session, in its answer to the hello: to find the session in its log. */
export const sessionHeader = 'cde-session';
/** For how many seconds the client looks for another path when it loses its own; without it for none. */
export const waitHeader = 'cde-wait';
export const targetHeader = 'cde-target';
const errorHeader = 'cde-error';
const detailHeader = 'cde-detail';

/**
 * One stream may have this much under way: 50 MB/s at 80 ms of round trip. It is also what a stream whose
 * reader has stopped costs in memory.
 */
export const streamWindow = 4 * 1024 * 1024;
/**
 * All streams together. Many times a stream's window, because it is shared: sixteen downloads that nobody
 * reads must not stop the terminal beside them.
 */
export const sessionWindow = 64 * 1024 * 1024;
/** Of Node's own accounting (MB), above the window: its default of 10 would refuse streams under load. */
export const maxSessionMemory = 128;

/**
 * What a client signs: a label, the ticket's hash and a secret that only the two ends of this very TLS
 * connection can compute (RFC 8446 §7.5, RFC 9266 in spirit). So a ticket seen elsewhere is worthless without
 * the key, and a proof is worthless on another connection.
 */
function proofInput(socket: TLSSocket, ticket: string): Buffer {
  return Buffer.concat([
    Buffer.from('cde session proof 1\n'),
    createHash('sha256').update(ticket).digest(),
    socket.exportKeyingMaterial(32, 'EXPORTER-cde-ticket', Buffer.alloc(0)),
  ]);
}

/** The proof for the `cde-proof` header, base64url. */
export function makeProof(socket: TLSSocket, ticket: string, clientKey: KeyObject): string {
  return sign(null, proofInput(socket, ticket), clientKey).toString('base64url');
}

/** True when the holder of the ticket's client key (SPKI, base64url) made the proof on this connection. */
export function checkProof(socket: TLSSocket, ticket: string, clientKey: string, proof: string): boolean {
  try {
    const key = importPublicKey(clientKey);
    if (key.asymmetricKeyType !== 'ed25519') return false;
    return verify(null, proofInput(socket, ticket), key, Buffer.from(proof, 'base64url'));
  } catch {
    return false; // Not a key.
  }
}

/** The status of a refusal; the code in the header is what counts. */
function statusOf(code: TunnelErrorCode): number {
  if (code.startsWith('ticket-')) return 401;
  switch (code) {
    case 'target-invalid':
      return 400;
    case 'target-forbidden':
    case 'path-forbidden':
      return 403;
    case 'target-not-found':
      return 404;
    case 'target-timeout':
      return 504;
    default:
      return 502;
  }
}

/** The headers of a refusal. */
export function errorHeaders(error: TunnelError): OutgoingHttpHeaders {
  return {
    ':status': statusOf(error.code),
    [errorHeader]: error.code,
    ...(error.detail && { [detailHeader]: encodeURIComponent(error.detail.slice(0, 500).toWellFormed()) }),
  };
}

/** The error that a refusal's headers carry. */
function readErrorHeaders(headers: IncomingHttpHeaders): TunnelError {
  const code = headers[errorHeader];
  const detail = headers[detailHeader];
  let text: string | undefined;
  try {
    text = typeof detail === 'string' ? decodeURIComponent(detail) : undefined;
  } catch {
    text = undefined;
  }
  if (typeof code === 'string' && isTunnelErrorCode(code)) return new TunnelError(code, text);
  return new TunnelError('session-failed', `the agent answered ${headers[':status']}`);
}

/** Waits for a reply that is not a refusal. Rejects with the refusal, or with the stream's end. */
export function awaitResponse(stream: ClientHttp2Stream): Promise<IncomingHttpHeaders> {
  return new Promise((resolve, reject) => {
    const done = () => {
      stream.off('error', fail);
      stream.off('close', close);
    };
    const fail = (error: Error) => {
      done();
      stream.on('error', () => {});
      reject(error);
    };
    const close = () => fail(new TunnelError('session-failed', 'the agent closed the stream'));
    stream.on('error', fail);
    stream.on('close', close);
    stream.once('response', (headers) => {
      if (headers[':status'] !== 200) return fail(readErrorHeaders(headers));
      done();
      resolve(headers);
    });
  });
}
