import type { Endpoint } from '@cde/api/endpoint.ts';
import { Problem } from '@cde/api/problem.ts';
import type { FastifyReply } from 'fastify';
import type { Actor } from './actor.ts';

/** Across all endpoints. A dashboard has a dozen requests in progress, a multithreaded script a few hundred. */
const maxPerUser = 300;

/** Limits each user's requests in progress, so that one user cannot occupy every database connection. */
export function makeRequestLimiter() {
  const counts = new Map<string, number>();
  const change = (key: string, by: number) => {
    const now = (counts.get(key) ?? 0) + by;
    if (now > 0) counts.set(key, now);
    else counts.delete(key);
  };
  return {
    /** Counts a request until its reply closes. Throws a Problem if the actor already has too many. */
    add(
      actor: Actor,
      endpoint: Pick<Endpoint, 'method' | 'path' | 'maxConcurrent'>,
      reply: FastifyReply,
    ): void {
      if (actor.kind !== 'user') return;
      const all = actor.userId;
      const own = `${actor.userId} ${endpoint.method} ${endpoint.path}`;
      const { maxConcurrent } = endpoint;
      const isOver = maxConcurrent !== undefined && (counts.get(own) ?? 0) >= maxConcurrent;
      if (isOver || (counts.get(all) ?? 0) >= maxPerUser)
        throw new Problem(
          'too-many-requests',
          `You have ${isOver ? maxConcurrent : maxPerUser} requests${isOver ? ' of this kind' : ''} in progress, which is the limit.`,
          { hint: 'Wait for some of them to finish.', retryAfter: 1 },
        );
      const keys = maxConcurrent === undefined ? [all] : [all, own];
      for (const key of keys) change(key, 1);
      reply.raw.once('close', () => {
        for (const key of keys) change(key, -1);
      });
    },
  };
}
