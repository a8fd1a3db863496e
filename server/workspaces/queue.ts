import { EventEmitter } from 'node:events';
import { sql } from 'drizzle-orm';
import {
  type JobHelpers,
  type Runner,
  run,
  type WorkerEvents,
  Logger as WorkerLogger,
} from 'graphile-worker';
import { validate } from 'uuid';
import { type Database, openDatabase, type Queryable } from '../database/pool.ts';
import type { Replica } from '../database/replicas.ts';
import type { Logger } from '../log.ts';

/**
 * Of the steps that are due, which come first: those of what is under way, then all others in their turn, then what a
 * sweep looks at. So of a thousand that are started at once the first are ready while the last still wait, instead of
 * all at the end; and after a restart nobody waits behind a look at everything.
 */
const priorities = { inProgress: 0, other: 10, sweep: 20 } as const;

/**
 * Asks for a reconcile step of a workspace, in the caller's transaction. One job waits per workspace at
 * the most (job key). Without `afterMs` the step comes at once, even if a later one was planned; with
 * it, an earlier one stays. `isSweep`: nobody and nothing asks for it but the time. What is under way, or has a build
 * that waits, keeps its turn whoever asks.
 */
export async function enqueueReconcile(
  tx: Queryable,
  workspaceId: string,
  afterMs = 0,
  options: { isSweep?: boolean } = {},
): Promise<void> {
  await add(tx, [workspaceId], afterMs, options);
}

/** How many locks a statement takes, and keeps until its end, for which a request may have to wait. */
const maxPerStatement = 100;

/** The same for many, each at once, in few statements. */
export async function enqueueReconciles(
  tx: Queryable,
  workspaceIds: readonly string[],
  options: { isSweep?: boolean } = {},
): Promise<void> {
  // In the same order in all replicas, so that none waits for the other's locks in turn.
  const sorted = [...new Set(workspaceIds)].sort();
  for (let at = 0; at < sorted.length; at += maxPerStatement)
    await add(tx, sorted.slice(at, at + maxPerStatement), 0, options);
}

async function add(
  tx: Queryable,
  workspaceIds: readonly string[],
  afterMs: number,
  { isSweep = false }: { isSweep?: boolean },
): Promise<void> {
  const mode = afterMs > 0 ? 'preserve_run_at' : 'replace';
  await tx.execute(sql`
    SELECT 1
      FROM unnest(${sql.param(workspaceIds)}::uuid[]) AS asked (id)
      LEFT JOIN workspaces w ON w.id = asked.id
      LEFT JOIN builds b ON b.id = w.current_build_id
     CROSS JOIN LATERAL graphile_worker.add_job(
             'reconcile',
             payload => json_build_object('workspaceId', asked.id::text),
             run_at => now() + ${afterMs} * interval '1 millisecond',
             max_attempts => 1000,
             priority => CASE
               WHEN w.status IN ('starting', 'stopping', 'deleting') THEN ${priorities.inProgress}::int
               WHEN b.status = 'queued' THEN ${priorities.other}::int
               ELSE ${isSweep ? priorities.sweep : priorities.other}::int
             END,
             job_key => 'workspace:' || asked.id,
             job_key_mode => ${mode}
           )`);
}

/**
 * Wakes workspaces of which something was seen: those of one moment in one statement, one statement at a time. After a
 * restart the watches tell of every workspace at once; a query for each would take all connections, and whoever asks
 * anything of the server would be refused.
 */
export function makeWaker(database: Database, log: Logger): (workspaceId: string) => void {
  const due = new Set<string>();
  let isBusy = false;

  async function flush(): Promise<void> {
    // Those of the same turn of the event loop come together.
    await new Promise((resolve) => setImmediate(resolve));
    while (due.size > 0) {
      const some = [...due];
      due.clear();
      await enqueueReconciles(database.db, some).catch((error) =>
        log.warn({ err: error, workspaces: some.length }, 'a change could not be queued; the sweep finds it'),
      );
    }
    isBusy = false;
  }

  return (workspaceId) => {
    // What somebody else has written on an object of theirs is no id of ours.
    if (!validate(workspaceId)) return;
    due.add(workspaceId);
    if (isBusy) return;
    isBusy = true;
    void flush();
  };
}

/** How soon to try again when another replica is taking a step of the same workspace. */
const lockRetryMs = 100;

/**
 * Makes the steps of one workspace serial, over all replicas, by an advisory lock that ends with its
 * connection (so a killed replica holds nothing). graphile-worker's own queue names would do it too, but
 * a queue's next job then waits for a whole poll when the one before it ends (0.18 looks for the next
 * before it has freed the queue), and each look locks the rows of all queues: one for each workspace.
 *
 * A call while a step runs here waits for its end, and only the newest waits: the job of the newest is the one
 * that the queue would run again. graphile-worker gives a running job up for good when another of its key comes,
 * so a call that trusted the running step to look again would be lost with it.
 */
export function serializeByWorkspace(
  database: Database,
  step: (workspaceId: string, attempt: number) => Promise<void>,
): (workspaceId: string, attempt: number) => Promise<void> {
  const busy = new Map<string, { next: ((turn: boolean) => void) | null }>();

  async function underLock(workspaceId: string, attempt: number): Promise<void> {
    const client = await database.pool.connect();
    // A connection that may still hold the lock must not go back into the pool.
    let clean = false;
    try {
      const { rows } = await client.query<{ got: boolean }>(
        'SELECT pg_try_advisory_lock(hashtextextended($1, 2)) AS got',
        [workspaceId],
      );
      if (rows[0]?.got) {
        try {
          await step(workspaceId, attempt);
        } finally {
          await client.query('SELECT pg_advisory_unlock(hashtextextended($1, 2))', [workspaceId]);
        }
      } else {
        await enqueueReconcile(database.db, workspaceId, lockRetryMs);
      }
      clean = true;
    } finally {
      client.release(!clean);
    }
  }

  return async (workspaceId, attempt) => {
    const ahead = busy.get(workspaceId);
    if (ahead) {
      ahead.next?.(false);
      const turn = await new Promise<boolean>((resolve) => {
        ahead.next = resolve;
      });
      if (!turn) return;
    } else busy.set(workspaceId, { next: null });
    try {
      await underLock(workspaceId, attempt);
    } finally {
      const { next } = busy.get(workspaceId)!;
      // Who waited goes on in the same entry: whoever comes meanwhile waits behind it.
      if (next) busy.set(workspaceId, { next: null });
      else busy.delete(workspaceId);
      next?.(true);
    }
  };
}

export interface ReconcileWorker {
  start(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Connections of the queue alone: a server that answers thousands at once must still be able to say that a job has
 * ended. Each is held for one short statement, but for the one that listens.
 */
const queueConnections = 5;
/** How long a runner that has given up may take to end. */
const stopTimeoutMs = 5_000;

/** Runs reconcile steps from the queue for as long as this replica holds its place. */
export function makeReconcileWorker(options: {
  database: Database;
  replica: Replica;
  log: Logger;
  concurrency: number;
  /** `attempt` counts from 1 while a step keeps failing. */
  reconcile: (workspaceId: string, attempt: number) => Promise<void>;
}): ReconcileWorker {
  const { database, replica, log } = options;
  const logger = new WorkerLogger(({ label }) => (level, message) => {
    if (level === 'error') log.warn({ from: label }, message);
    else log.trace({ from: label }, message);
  });
  const queue = openDatabase(database.url, {
    max: queueConnections,
    onError: (error) => log.debug({ err: error }, 'a connection of the queue broke'),
  });
  let runner: Runner | null = null;
  let stopping = false;
  let wake: (() => void) | null = null;
  let loop: Promise<void> | null = null;
  let running: (() => void) | null = null;
  replica.onLost(() => wake?.());

  async function once(): Promise<void> {
    await replica.join();
    if (stopping) return;
    const lost = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const events = new EventEmitter() as WorkerEvents;
    // Jobs are locked in the name of the pool; whoever takes over from this replica must know it.
    events.on('pool:create', ({ workerPool }) => void replica.setWorkers([workerPool.id]).catch(() => {}));
    // It gives up when it cannot say that jobs have ended, and was once seen never to end then: nobody took a job.
    const broken = new Promise<'broken'>((resolve) => {
      events.on('pool:gracefulShutdown', () => resolve('broken'));
    });
    const serially = serializeByWorkspace(database, options.reconcile);
    runner = await run({
      pgPool: queue.pool,
      logger,
      events,
      concurrency: options.concurrency,
      noHandleSignals: true,
      pollInterval: 1_000,
      // Batches of a moment, because the errors of a single release are caught by nobody: a database that went
      // away while a job ended would take the whole server with it.
      preset: { worker: { completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
      taskList: {
        async reconcile(payload: unknown, helpers: JobHelpers) {
          const { workspaceId } = payload as { workspaceId: string };
          await serially(workspaceId, helpers.job.attempts);
        },
      },
    });
    running?.();
    const over = runner.promise.catch((error) =>
      log.warn({ err: error }, 'the job runner ended; starting it again'),
    );
    const why = await Promise.race([lost, over, broken]);
    const ended = runner;
    runner = null;
    const end = ended.stop().catch(() => {});
    if (why !== 'broken') return end;
    log.warn('the job runner gave up; starting it again');
    await Promise.race([end, new Promise((resolve) => setTimeout(resolve, stopTimeoutMs).unref())]);
  }

  return {
    start() {
      const first = new Promise<void>((resolve) => {
        running = resolve;
      });
      loop = (async () => {
        while (!stopping) {
          try {
            await once();
          } catch (error) {
            log.warn({ err: error }, 'the job runner could not start; trying again');
            await new Promise((resolve) => setTimeout(resolve, 1_000));
          }
        }
      })();
      return first;
    },
    async stop() {
      stopping = true;
      wake?.();
      await loop;
      await replica.leave();
      await queue.close();
    },
  };
}
