import { createHash, type KeyObject, sign, verify } from 'node:crypto';
import type { ClientHttp2Stream, IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { isTunnelErrorCode, TunnelError, type TunnelErrorCode } from '../errors.ts';
import { importPublicKey } from './keys.ts';

/** The protocol between client (session.ts) and agent (host.ts) inside TLS. README.md describes the sequence. */
export const alpn = 'h2';
export const helloPath = '/v1/hello';
/** The agent's offers of other paths: a line for each change while the session lasts. */
export const offersPath = '/v1/offers';
/** Signaling for a path by UDP (ice.ts), for the duration of one attempt. */
export const icePath = '/v1/direct-udp';
/** The agent's round trip to the satellite of the current path; 404 from agents of earlier releases. */
export const legPath = '/v1/leg';
export const proofHeader = 'cde-proof';
/** The agent's id of the session, returned in its answer to the hello, as it appears in the agent's log. */
export const sessionHeader = 'cde-session';
/** How many seconds the client looks for another path after losing its own; if absent, it does not. */
export const waitHeader = 'cde-wait';
export const targetHeader = 'cde-target';
/** Set by proxies of shared ports: who requested what (streams/visits.ts). Absent in streams of other clients. */
export const visitHeader = 'cde-visit';
const errorHeader = 'cde-error';
const detailHeader = 'cde-detail';

/**
 * Flow control window of a stream: 50 MB/s at a round trip of 80 ms. Also the memory cost of a stream whose reader has
 * stopped.
 */
export const streamWindow = 4 * 1024 * 1024;
/**
 * Shared by all streams, and many times a stream's window, so that sixteen downloads that nobody reads do not block the
 * terminal beside them.
 */
export const sessionWindow = 64 * 1024 * 1024;
/** Node's own accounting in MB, above the window: the default of 10 would refuse streams under load. */
export const maxSessionMemory = 128;

/**
 * What a client signs: a label, the ticket's hash, and a secret that only the two ends of this TLS connection can derive
 * (RFC 8446 §7.5, in the spirit of RFC 9266). A stolen ticket is useless without the key, and a proof is useless on
 * another connection.
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

/** True if the proof was made on this connection by the holder of the ticket's client key (SPKI, base64url). */
export function checkProof(socket: TLSSocket, ticket: string, clientKey: string, proof: string): boolean {
  try {
    const key = importPublicKey(clientKey);
    if (key.asymmetricKeyType !== 'ed25519') return false;
    return verify(null, proofInput(socket, ticket), key, Buffer.from(proof, 'base64url'));
  } catch {
    return false; // Not a key.
  }
}

/** The HTTP status of a refusal. Clients rely on the code in the header. */
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

/** Encodes a refusal in response headers. */
export function errorHeaders(error: TunnelError): OutgoingHttpHeaders {
  return {
    ':status': statusOf(error.code),
    [errorHeader]: error.code,
    ...(error.detail && { [detailHeader]: encodeURIComponent(error.detail.slice(0, 500).toWellFormed()) }),
  };
}

/** Decodes a refusal from response headers. */
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

/** Resolves to the response headers. Rejects with a refusal, or if the stream ends first. */
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
