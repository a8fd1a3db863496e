import { createHash } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { type ErrorCode, Problem } from '@cde/api/problem.ts';
import { and, eq, gt, inArray } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database } from '../../database/pool.ts';
import { signInFailures } from '../../database/schema.ts';
import { windowMs } from './attempt-limit.ts';

/** The delay of an attempt, by the number of failures within the window. */
type DelaySteps = readonly (readonly [failures: number, waitMs: number])[];

/**
 * Attempts are delayed and never locked out, so that people who share an address with an attacker (all local workspaces
 * have 127.0.0.1, an office has one address) can still sign in. At the last step one address has about 10,000 guesses a
 * day at an account, and all addresses together 21,600.
 */
const steps = {
  /** One address on one account. The first step is high enough that people who mistype do not wait. */
  usernameAtAddress: [
    [10, 1_000],
    [20, 2_000],
    [40, 4_000],
    [80, 8_000],
  ],
  /** One account from all addresses: distributed guessing. */
  username: [
    [30, 1_000],
    [100, 2_000],
    [300, 4_000],
  ],
  /** One address on all accounts: password spraying. */
  address: [
    [100, 500],
    [300, 1_000],
    [1_000, 2_000],
  ],
} as const satisfies Record<string, DelaySteps>;

/** Attempts that can wait in one bucket. More come from a program, and each holds a connection. */
const maxWaitingPerBucket = 8;
const maxWaiting = 200;

interface Bucket {
  subject: string;
  steps: DelaySteps;
  /** Whether a success clears the failures. */
  clearOnSuccess?: boolean;
}

/** The unit that counts as one address: an IPv4 address, or the /64 that one IPv6 customer typically has. */
export function network(ip: string): string {
  const plain = ip.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail = ''] = plain.replace(/%.*$/, '').split('::');
  const left = head.split(':').filter(Boolean);
  const right = tail.split(':').filter(Boolean);
  const groups = plain.includes('::')
    ? [...left, ...Array(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right]
    : left;
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}

const isLoopback = (ip: string) => /^(::ffff:)?127\.|^::1$/i.test(ip);

/** Names are stored as a hash, because people sometimes type their password in place of the username. */
export const hashUsername = (name: string): string =>
  createHash('sha256').update(name).digest('base64url').slice(0, 22);

/**
 * The buckets of a password sign-in. `name` need not belong to a user, so that reply and timing do not reveal whether it
 * does. `device`: this browser has signed in as the user before, so only its own failures delay it.
 */
export function signInBuckets(name: string, ip: string, device: string | null): Bucket[] {
  if (device !== null)
    return [{ subject: `device:${device}`, steps: steps.usernameAtAddress, clearOnSuccess: true }];
  const from = network(ip);
  return [
    // Everyone on the machine and every proxy missing from CDE_TRUST_PROXY shares the loopback address.
    ...(isLoopback(ip) ? [] : [{ subject: `address:${from}`, steps: steps.address }]),
    {
      subject: `username:${hashUsername(name)} address:${from}`,
      steps: steps.usernameAtAddress,
      clearOnSuccess: true,
    },
    { subject: `username:${hashUsername(name)}`, steps: steps.username },
  ];
}

const delayFor = (failures: number, given: DelaySteps): number =>
  given.findLast(([from]) => failures >= from)?.[1] ?? 0;

/** Slows down password guessing. Failures are counted across replicas; each replica queues its own attempts. */
export function makeSignInThrottle({
  database,
  now,
  sleep,
}: {
  database: Database;
  now: () => Date;
  sleep: (ms: number) => Promise<void>;
}) {
  const { db } = database;
  /** Buckets with waiting attempts: how many wait, and until when the last one does. */
  const queues = new Map<string, { waiting: number; until: number }>();
  let waiting = 0;

  /** Throws `sign-in-throttled` if too many attempts are waiting already. */
  async function waitForTurn(given: Bucket[]): Promise<void> {
    const since = new Date(now().getTime() - windowMs);
    const slow: { subject: string; waitMs: number }[] = [];
    for (const { subject, steps } of given) {
      const counted = await db.$count(
        signInFailures,
        and(eq(signInFailures.subject, subject), gt(signInFailures.at, since)),
      );
      // Without this attempt, which is already counted.
      const waitMs = delayFor(counted - 1, steps);
      if (waitMs > 0) slow.push({ subject, waitMs });
    }
    if (slow.length === 0) return;
    const at = now().getTime();
    const full = slow.find(({ subject }) => (queues.get(subject)?.waiting ?? 0) >= maxWaitingPerBucket);
    if (full || waiting >= maxWaiting) {
      const until = full ? queues.get(full.subject)!.until : at + 1000;
      throw new Problem('sign-in-throttled', 'Too many failed attempts.', {
        detail: 'Attempts on this account or from this address are queued, and the queue is full.',
        hint: 'Wait, or sign in another way: single sign-on, or a one-time link.',
        retryAfter: Math.max(1, Math.ceil((until - at) / 1000)),
      });
    }
    let until = at;
    for (const { subject, waitMs } of slow) {
      const queue = queues.get(subject) ?? { waiting: 0, until: at };
      queue.waiting += 1;
      queue.until = Math.max(queue.until, at) + waitMs;
      queues.set(subject, queue);
      until = Math.max(until, queue.until);
    }
    waiting += 1;
    try {
      await sleep(until - at);
    } finally {
      waiting -= 1;
      for (const { subject } of slow) {
        const queue = queues.get(subject)!;
        queue.waiting -= 1;
        if (queue.waiting === 0) queues.delete(subject);
      }
    }
  }

  /**
   * Runs one guess after its delay. A guess is counted before it is checked, so that a thousand concurrent ones do not all
   * pass, and uncounted unless `work` fails with one of `failures`.
   */
  async function throttle<T>(given: Bucket[], failures: ErrorCode[], work: () => Promise<T>): Promise<T> {
    const rows = given.map(({ subject }) => ({ id: v7(), subject, at: now() }));
    await db.insert(signInFailures).values(rows);
    const ids = rows.map(({ id }) => id);
    const forget = () => db.delete(signInFailures).where(inArray(signInFailures.id, ids));
    let result: T;
    try {
      await waitForTurn(given);
      result = await work();
    } catch (error) {
      if (!(error instanceof Problem && failures.includes(error.code))) await forget();
      throw error;
    }
    await forget();
    const clearable = given.filter((queue) => queue.clearOnSuccess).map((queue) => queue.subject);
    if (clearable.length > 0)
      await db.delete(signInFailures).where(inArray(signInFailures.subject, clearable));
    return result;
  }
  return { throttle };
}

export type SignInThrottle = ReturnType<typeof makeSignInThrottle>;
