import type { Endpoint } from '@cde/api/endpoint.ts';
import { Problem } from '@cde/api/problem.ts';
import type { FastifyReply } from 'fastify';
import type { Actor } from './actor.ts';

/** Of all endpoints together: a dashboard has a dozen requests in progress, a script of many threads some hundred. */
const maxPerUser = 300;

/** Counts each user's requests in progress, so that one user's do not take every connection to the database. */
export function makeRequestLimiter() {
  const counts = new Map<string, number>();
  const change = (key: string, by: number) => {
    const now = (counts.get(key) ?? 0) + by;
    if (now > 0) counts.set(key, now);
    else counts.delete(key);
  };
  return {
    /** Throws a Problem if the actor has too many in progress already. */
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
          { hint: 'Wait for some of them to end.', retryAfter: 1 },
        );
      const keys = maxConcurrent === undefined ? [all] : [all, own];
      for (const key of keys) change(key, 1);
      reply.raw.once('close', () => {
        for (const key of keys) change(key, -1);
      });
    },
  };
}
