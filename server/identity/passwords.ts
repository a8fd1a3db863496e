import { Problem } from '@cde/api/problem.ts';
import { hash, parseOptions, verify } from '@node-rs/argon2';

/**
 * argon2id (algorithm 2) with OWASP's second profile: 19 MiB, two passes, one lane. About 16 ms of one
 * core on the machine that design.md measured on.
 */
const policy = { algorithm: 2, memoryCost: 19_456, timeCost: 2, parallelism: 1, outputLen: 32 } as const;

// Hashing runs on libuv's pool of four threads, which files and DNS share: two stay free for them. A
// flood of sign-ins then waits here, and beyond the queue is told to come back, instead of filling memory.
const maxConcurrent = 2;
const maxQueued = 64;

let running = 0;
const waiting: (() => void)[] = [];

async function withSlot<T>(work: () => Promise<T>): Promise<T> {
  if (running >= maxConcurrent) {
    if (waiting.length >= maxQueued)
      throw new Problem('server-busy', 'Too many people are signing in at this moment.', {
        hint: 'Try again in a few seconds.',
        retryAfter: 2,
      });
    // The one that ends hands its place over, so that nobody slips in between.
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

/** The PHC string that the database keeps. */
export function hashPassword(password: string): Promise<string> {
  return withSlot(() => hash(password, policy));
}

let dummy: Promise<string> | undefined;

/**
 * True when `password` is the one that `stored` was made of. Without `stored` (no such user, or one
 * without a password) it does the same work and says no, so that the time taken tells nothing.
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

/** True when `stored` was made under an older policy, to be made anew at the next sign-in. */
export function needsRehash(stored: string): boolean {
  const made = parseOptions(stored);
  return (
    Number(made.algorithm) !== policy.algorithm ||
    made.memoryCost !== policy.memoryCost ||
    made.timeCost !== policy.timeCost ||
    made.parallelism !== policy.parallelism
  );
}
