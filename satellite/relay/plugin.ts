import type { TLSSocket } from 'node:tls';
import type { ApiError } from '@cde/api/errors.ts';
import { socketProtocol } from '@cde/api/identity.ts';
import {
  type ProbeClaims,
  verifyDialTicket,
  verifyListenToken,
  verifyProbeToken,
} from '@cde/tunnel/auth/ticket.ts';
import { asTunnelError, TunnelError } from '@cde/tunnel/errors.ts';
import { certificateHeader, maxRelayMessage, relayPaths } from '@cde/tunnel/paths/relay-protocol.ts';
import websocket from '@fastify/websocket';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Relay } from './relay.ts';
import { throughputRoutes } from './throughput.ts';

/**
 * Options of @fastify/websocket on an instance that serves a relay: no compression, since the data is encrypted, and no
 * messages above the relay's limit.
 */
export const websocketOptions = {
  perMessageDeflate: false,
  maxPayload: maxRelayMessage,
  // Our programs send no fragments, and proxies that fragment use larger ones. An empty fragment costs as much as a
  // message but does not count as one.
  maxFragments: 32,
  // 256 KiB in packets of 64 bytes: each buffered chunk has an overhead.
  maxBufferedChunks: 4096,
  // The default of 30 s would keep peers that do not answer a close frame.
  closeTimeout: 5_000,
  // Pages offer a second protocol that carries their session key and must not be echoed. Browsers fail the connection
  // if none of the offered protocols is chosen.
  handleProtocols: (offered: Set<string>) => offered.has(socketProtocol) && socketProtocol,
} as const;

/**
 * Fastify plugin with the relay's WebSocket endpoints and the probes for latency and throughput. Registers
 * @fastify/websocket if needed and closes the relay with the instance. Rejects before the upgrade with an ApiError: 401
 * for an invalid ticket or token, 503 while draining.
 */
export async function relayPlugin(app: FastifyInstance, { relay }: { relay: Relay }): Promise<void> {
  if (!app.hasDecorator('websocketServer')) await app.register(websocket, { options: websocketOptions });

  app.addHook('preClose', () => relay.close());

  app.get(
    relayPaths.listen,
    {
      websocket: true,
      preValidation: (request, reply) =>
        admit(request, reply, (token, keys) => verifyListenToken(token, keys, relay.id())),
    },
    (socket, request) => relay.listen(socket, claimsOf(request)),
  );
  app.get(
    relayPaths.dial,
    {
      websocket: true,
      preValidation: (request, reply) =>
        admit(request, reply, (token, keys) => verifyDialTicket(token, keys, relay.name())),
    },
    (socket, request) => relay.dial(socket, claimsOf(request)),
  );

  app.get(relayPaths.probe, { schema: { hide: true } as object }, (request, reply) => {
    if (relay.draining) return reject(request, reply, 503, new TunnelError('satellite-draining'));
    const certificate = ownCertificate(request);
    if (certificate) reply.header(certificateHeader, certificate);
    return reply.code(204).header('cache-control', 'no-store').send();
  });

  throughputRoutes(app, {
    admit: (request, reply) => admit(request, reply, verifyProbeToken),
    claimsOf: (request) => claimsOf<ProbeClaims>(request),
    rejectBusy: (request, reply) =>
      reject(
        request,
        reply,
        429,
        new TunnelError('satellite-overloaded', 'too many throughput tests at once'),
      ),
  });

  const admitted = new WeakMap<FastifyRequest, unknown>();

  async function admit<T>(
    request: FastifyRequest,
    reply: FastifyReply,
    verify: (token: string, keys: readonly string[]) => Promise<T>,
  ): Promise<unknown> {
    try {
      if (relay.draining) return reject(request, reply, 503, new TunnelError('satellite-draining'));
      const token = /^Bearer (\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
      admitted.set(request, await verify(token ?? '', relay.ticketKeys()));
    } catch (thrown) {
      return reject(request, reply, 401, asTunnelError(thrown, 'ticket-invalid'));
    }
  }

  /** Set by the hook above before the handler runs. */
  function claimsOf<T>(request: FastifyRequest): T {
    return admitted.get(request) as T;
  }
}

/** The SHA-256 of the certificate that this connection got; undefined behind something that terminates TLS. */
function ownCertificate(request: FastifyRequest): string | undefined {
  const socket = request.raw.socket as Partial<TLSSocket>;
  return socket.encrypted ? socket.getX509Certificate?.()?.fingerprint256 : undefined;
}

function reject(
  request: FastifyRequest,
  reply: FastifyReply,
  status: number,
  error: TunnelError,
): FastifyReply {
  const body: ApiError = {
    code: error.code,
    message: error.message,
    detail: error.detail,
    hint: error.hint,
    requestId: request.id,
  };
  return reply.code(status).send(body);
}
