import type { ApiError } from '@cde/api/errors.ts';
import { socketProtocol } from '@cde/api/identity.ts';
import {
  type ProbeClaims,
  verifyListenToken,
  verifyProbeToken,
  verifyTicket,
} from '@cde/tunnel/auth/ticket.ts';
import { asTunnelError, TunnelError } from '@cde/tunnel/errors.ts';
import { maxRelayMessage, relayPaths } from '@cde/tunnel/paths/relay-protocol.ts';
import websocket from '@fastify/websocket';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Relay } from './relay.ts';
import { throughputRoutes } from './throughput.ts';

/**
 * For whoever registers @fastify/websocket on an instance that also serves a relay: no compression (it is
 * ciphertext), and no message larger than a relay's.
 */
export const websocketOptions = {
  perMessageDeflate: false,
  maxPayload: maxRelayMessage,
  // Nobody of ours sends fragments, and a proxy that cuts messages cuts them into larger ones. An empty fragment costs
  // as much as a message and counts as none.
  maxFragments: 32,
  // A message of 256 KiB in packets of 64 bytes; each chunk that waits costs memory besides its bytes.
  maxBufferedChunks: 4096,
  // A peer that does not answer a close is cut off after this, not after ws's 30 s.
  closeTimeout: 5_000,
  // Pages offer a second protocol that carries their session key; it is not for a reply. Without an answer to an offer
  // browsers give up.
  handleProtocols: (offered: Set<string>) => offered.has(socketProtocol) && socketProtocol,
} as const;

/**
 * A Fastify plugin: the relay's two WebSocket endpoints, the probe that tells how far it is, and those that tell how
 * much goes through. Registers @fastify/websocket unless the instance has
 * it. Closes the relay when the instance closes. Refuses before the upgrade, with an ApiError: 401 for a ticket or token, 503 while draining.
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
    { websocket: true, preValidation: (request, reply) => admit(request, reply, verifyTicket) },
    (socket, request) => relay.dial(socket, claimsOf(request)),
  );

  app.get(relayPaths.probe, { schema: { hide: true } as object }, (request, reply) => {
    if (relay.draining) return reject(request, reply, 503, new TunnelError('satellite-draining'));
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

  /** What the hook above has put there before the handler runs. */
  function claimsOf<T>(request: FastifyRequest): T {
    return admitted.get(request) as T;
  }
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
