import type { X509Certificate } from 'node:crypto';
import { Agent as HttpAgent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import {
  type AgentOptions,
  Agent as HttpsAgent,
  request as httpsRequest,
  type RequestOptions,
} from 'node:https';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { proxyAgent } from '../network/proxy.ts';

export interface ProbeReply {
  status: number;
  headers: IncomingHttpHeaders;
  /** The connection that carried it. */
  socket: Socket;
  rttMs: number;
  /** The other end's certificate, and why it is not trusted; null without TLS. */
  peer: { certificate: X509Certificate; error: string | null } | null;
}

/** Read at once: a closed connection has forgotten it. */
function peerOf(socket: Socket): ProbeReply['peer'] {
  const tls = socket as Partial<TLSSocket>;
  const certificate = tls.encrypted ? tls.getPeerX509Certificate?.() : undefined;
  return certificate ? { certificate, error: tls.authorized ? null : String(tls.authorizationError) } : null;
}

/** One connection at a time, kept open; through the proxy if there is one. */
export function makeProbeAgent(url: URL, options: AgentOptions = {}): HttpAgent {
  const kept = { keepAlive: true, maxSockets: 1, ...options };
  if (url.protocol !== 'https:') return new HttpAgent({ keepAlive: true, maxSockets: 1 });
  return proxyAgent(kept) ?? new HttpsAgent(kept);
}

/**
 * Sends a GET without any secret, so that it may go to whatever answers at an address, and reads the head of the reply.
 * The body is discarded. Rejects with the connection's error.
 */
export function sendProbe(
  url: URL,
  options: RequestOptions & { agent: HttpAgent; signal: AbortSignal },
): Promise<ProbeReply> {
  return new Promise((resolve, reject) => {
    let sentAt = performance.now();
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = send(url, { ...options, method: 'GET' }, (response) => {
      const { statusCode = 0, headers, socket } = response;
      const rttMs = performance.now() - sentAt;
      const reply = { status: statusCode, headers, socket, rttMs, peer: peerOf(socket) };
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        // A page of someone else's. Its end does not matter.
        if (bytes > maxBodyBytes) response.destroy();
      });
      response.on('error', () => {});
      response.once('close', () => resolve(reply));
    });
    request.once('finish', () => {
      sentAt = performance.now();
    });
    request.on('error', reject);
    request.end();
  });
}

const maxBodyBytes = 256 * 1024;
