import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ProbeClaims } from '@cde/tunnel/auth/ticket.ts';
import { relayPaths } from '@cde/tunnel/paths/relay-protocol.ts';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

/** Bytes per test and direction: several times the bandwidth-delay product of 1 Gbit/s at 20 ms. */
export const maxProbeBytes = 8 * 1024 * 1024;
/** A test ends after this time even if it is incomplete. */
const maxDurationMs = 3_000;
/** Tests must not slow down sessions. */
const maxConcurrent = 4;
const maxConcurrentPerUser = 1;
const maxPerMinutePerUser = 12;
const maxPerMinutePerAddress = 60;

/** Larger than the window of any compression along the path. */
const block = randomBytes(64 * 1024);

/**
 * Serves throughput tests to clients with a probe token, which `admit` checks: `down` sends the requested number of
 * bytes, `up` counts what it receives. Beyond the limits it answers 429 with Retry-After.
 */
export function throughputRoutes(
  app: FastifyInstance,
  options: {
    admit: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>;
    claimsOf: (request: FastifyRequest) => ProbeClaims;
    rejectBusy: (request: FastifyRequest, reply: FastifyReply) => FastifyReply;
    now?: () => number;
  },
): void {
  const { now = () => performance.now() } = options;
  const running = new Map<string, number>();
  let since = now();
  let counts = new Map<string, number>();

  /** Returns a function that ends the test, or null if a limit is reached. Counts are reset every minute. */
  function begin(userId: string, address: string): (() => void) | null {
    const at = now();
    if (at - since >= 60_000) {
      since = at;
      counts = new Map();
    }
    const limits = [
      [`user ${userId}`, maxPerMinutePerUser],
      [`address ${address}`, maxPerMinutePerAddress],
    ] as const;
    const all = [...running.values()].reduce((sum, each) => sum + each, 0);
    if (all >= maxConcurrent || (running.get(userId) ?? 0) >= maxConcurrentPerUser) return null;
    if (limits.some(([key, most]) => (counts.get(key) ?? 0) >= most)) return null;
    for (const [key] of limits) counts.set(key, (counts.get(key) ?? 0) + 1);
    running.set(userId, (running.get(userId) ?? 0) + 1);
    return () => {
      const left = running.get(userId)! - 1;
      if (left > 0) running.set(userId, left);
      else running.delete(userId);
    };
  }

  async function admit(request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    const refused = await options.admit(request, reply);
    if (refused) return refused;
    const end = begin(options.claimsOf(request).userId, request.ip);
    if (!end) return options.rejectBusy(request, reply.header('retry-after', '10'));
    reply.raw.once('close', end);
    return undefined;
  }

  app.get(relayPaths.down, { schema: { hide: true } as object, onRequest: admit }, (request, reply) => {
    const asked = Number((request.query as { bytes?: string }).bytes ?? maxProbeBytes);
    let left = Math.min(Number.isSafeInteger(asked) && asked > 0 ? asked : maxProbeBytes, maxProbeBytes);
    const until = now() + maxDurationMs;
    const source = new Readable({
      highWaterMark: block.length,
      read() {
        if (left <= 0 || now() > until) return void this.push(null);
        const chunk = left < block.length ? block.subarray(0, left) : block;
        left -= chunk.length;
        this.push(chunk);
      },
    });
    return reply.header('cache-control', 'no-store').type('application/octet-stream').send(source);
  });

  // The body is streamed and discarded.
  app.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload));
  app.post(relayPaths.up, { schema: { hide: true } as object, onRequest: admit }, async (request, reply) => {
    const until = now() + 2 * maxDurationMs;
    let bytes = 0;
    for await (const chunk of request.body as Readable) {
      bytes += (chunk as Buffer).length;
      if (bytes > maxProbeBytes || now() > until) {
        reply.header('connection', 'close');
        break;
      }
    }
    return reply.header('cache-control', 'no-store').send({ bytes });
  });
}
