import type { FastifyBaseLogger } from 'fastify';
import type { Database } from '../../database/pool.ts';
import { writeAudit } from './audit.ts';

/** Failures of one kind within this window make two rows: the first one, and the total. */
const windowMs = 15 * 60_000;
const flushEveryMs = 60_000;
/** Kinds with their own rows within a window. The rest share one, so that a flood cannot fill the table. */
const maxKinds = 50;

interface SignInFailure {
  action: 'sign-in.fail' | 'sign-in.throttle';
  how: 'password' | 'one-time-link' | 'oidc';
  /** The user with the submitted name, if there is one. */
  user: { id: string; username: string } | null;
  /** A hash of the submitted name, because people sometimes type their password there. */
  name: string;
  ip: string;
  requestId: string;
}

interface FailureCount {
  failure: SignInFailure;
  attempts: number;
  until: number;
}

const noUser = '(no user)';
const others = '(others)';

/** Writes audit rows of failed sign-ins. Never throws, so that a failing database does not change the reply. */
export function makeFailureAudit({
  database,
  now,
  log,
}: {
  database: Database;
  now: () => Date;
  log: Pick<FastifyBaseLogger, 'warn'>;
}) {
  const seen = new Map<string, FailureCount>();

  async function write({ action, how, user, name, ip, requestId }: SignInFailure, attempts: number) {
    try {
      await writeAudit(
        database.db,
        { actor: { kind: 'anonymous' }, requestId, ip },
        {
          action,
          targetType: 'user',
          targetId: user?.id ?? name,
          targetName: user?.username ?? (name === others ? others : noUser),
          after: { how, attempts },
        },
      );
    } catch (error) {
      log.warn({ err: error }, 'a failed sign-in could not be written to the audit log');
    }
  }

  async function record(failure: SignInFailure): Promise<void> {
    await flush();
    const { action, how, user, name, ip } = failure;
    const key = [action, how, user?.id ?? name, ip].join(' ');
    const known = seen.get(key);
    if (known) {
      known.attempts += 1;
      return;
    }
    const until = now().getTime() + windowMs;
    if (seen.size >= maxKinds) {
      const rest = { ...failure, user: null, name: others, ip: others };
      const counted = seen.get(others) ?? { failure: rest, attempts: 0, until };
      counted.attempts += 1;
      seen.set(others, counted);
      return;
    }
    seen.set(key, { failure, attempts: 1, until });
    await write(failure, 1);
  }

  /** Writes the totals of the windows that have ended. */
  async function flush(all = false): Promise<void> {
    for (const [key, { failure, attempts, until }] of [...seen]) {
      if (!all && until > now().getTime()) continue;
      seen.delete(key);
      if (attempts > 1 || key === others) await write(failure, attempts);
    }
  }
  const timer = setInterval(() => void flush(), flushEveryMs);
  timer.unref();

  return {
    record,
    flush,
    async close() {
      clearInterval(timer);
      await flush(true);
    },
  };
}

export type FailureAudit = ReturnType<typeof makeFailureAudit>;
