import { Problem } from '@cde/api/problem.ts';
import { hash, parseOptions, verify } from '@node-rs/argon2';
import pLimit from 'p-limit';

/**
 * argon2id (algorithm 2) with OWASP's second profile: 19 MiB, two passes, one lane. About 16 ms of one core.
 */
const policy = { algorithm: 2, memoryCost: 19_456, timeCost: 2, parallelism: 1, outputLen: 32 } as const;

// Hashing runs on libuv's four threads, shared with file system and DNS calls: two stay free for those. A flood of sign-ins
// queues here, and is rejected beyond the queue instead of filling memory.
const maxConcurrent = 2;
const maxQueued = 64;

const limit = pLimit(maxConcurrent);

async function withSlot<T>(work: () => Promise<T>): Promise<T> {
  if (limit.activeCount >= maxConcurrent && limit.pendingCount >= maxQueued)
    throw new Problem('server-busy', 'Too many people are signing in at the same time.', {
      hint: 'Try again in a few seconds.',
      retryAfter: 2,
    });
  return limit(work);
}

/** Returns the PHC string that is stored in the database. */
export function hashPassword(password: string): Promise<string> {
  return withSlot(() => hash(password, policy));
}

let dummy: Promise<string> | undefined;

/**
 * Whether `password` matches the hash `stored`. Without `stored` (unknown user, or no password) it does the same work and
 * returns false, so that the timing does not reveal whether a user exists.
 */
export async function verifyPassword(stored: string | null, password: string): Promise<boolean> {
  if (stored === null) {
    dummy ??= hashPassword('nobody has this password');
    const against = await dummy;
    await withSlot(() => verify(against, password));
    return false;
  }
  return withSlot(() => verify(stored, password));
}

/** Whether `stored` was made with other parameters than today's. */
export function needsRehash(stored: string): boolean {
  const made = parseOptions(stored);
  return (
    Number(made.algorithm) !== policy.algorithm ||
    made.memoryCost !== policy.memoryCost ||
    made.timeCost !== policy.timeCost ||
    made.parallelism !== policy.parallelism
  );
}
