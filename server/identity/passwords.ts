import { Problem } from '@cde/api/problem.ts';
import { hash, parseOptions, verify } from '@node-rs/argon2';

/**
 * argon2id (algorithm 2) with OWASP's second profile: 19 MiB, two passes, one lane. About 16 ms of one core.
 */
const policy = { algorithm: 2, memoryCost: 19_456, timeCost: 2, parallelism: 1, outputLen: 32 } as const;

// Hashing runs on libuv's four threads, shared with file system and DNS calls: two stay free for those. A flood of sign-ins
// queues here, and is rejected beyond the queue instead of filling memory.
const maxConcurrent = 2;
const maxQueued = 64;

let running = 0;
const waiting: (() => void)[] = [];

async function withSlot<T>(work: () => Promise<T>): Promise<T> {
  if (running >= maxConcurrent) {
    if (waiting.length >= maxQueued)
      throw new Problem('server-busy', 'Too many people are signing in at the same time.', {
        hint: 'Try again in a few seconds.',
        retryAfter: 2,
      });
    // A finishing call passes its slot on, so that a new call cannot overtake the queue.
    await new Promise<void>((resolve) => waiting.push(resolve));
  } else running++;
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else running--;
  }
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
