import { EventEmitter } from 'node:events';
import {
  type JobHelpers,
  type Runner,
  run,
  type WorkerEvents,
  Logger as WorkerLogger,
} from 'graphile-worker';
import { type Database, openDatabase } from '../database/pool.ts';
import type { Replica } from '../database/replicas.ts';
import type { Logger } from '../log.ts';
import { enqueueReconcile } from './queue.ts';

/** How soon to try again while another replica runs a step of the same workspace. */
const lockRetryMs = 100;

/**
 * Runs the steps of one workspace one at a time across all replicas, with an advisory lock that ends with its connection,
 * so that a killed replica holds nothing. graphile-worker's own queue names would do that too, but after a job ends the
 * next one in its queue waits for a whole poll (0.18 looks for the next job before it has released the queue), and every
 * look locks the rows of all queues, one per workspace.
 *
 * A call during a step waits for its end, and only the newest call waits, because only the newest call's job would be
 * retried: graphile-worker abandons a running job when another with its key is added.
 */
export function serializeByWorkspace(
  database: Database,
  step: (workspaceId: string, attempt: number) => Promise<void>,
): (workspaceId: string, attempt: number) => Promise<void> {
  const running = new Map<string, { waiter: ((proceed: boolean) => void) | null }>();

  async function runLocked(workspaceId: string, attempt: number): Promise<void> {
    const client = await database.pool.connect();
    // A connection that may still hold the lock must not return to the pool.
    let isReusable = false;
    try {
      const { rows } = await client.query<{ locked: boolean }>(
        'SELECT pg_try_advisory_lock(hashtextextended($1, 2)) AS locked',
        [workspaceId],
      );
      if (rows[0]?.locked) {
        try {
          await step(workspaceId, attempt);
        } finally {
          await client.query('SELECT pg_advisory_unlock(hashtextextended($1, 2))', [workspaceId]);
        }
      } else {
        await enqueueReconcile(database.db, workspaceId, lockRetryMs);
      }
      isReusable = true;
    } finally {
      client.release(!isReusable);
    }
  }

  return async (workspaceId, attempt) => {
    const current = running.get(workspaceId);
    if (current) {
      current.waiter?.(false);
      const proceed = await new Promise<boolean>((resolve) => {
        current.waiter = resolve;
      });
      if (!proceed) return;
    } else running.set(workspaceId, { waiter: null });
    try {
      await runLocked(workspaceId, attempt);
    } finally {
      const { waiter } = running.get(workspaceId)!;
      // Replace the entry before the waiter proceeds, so that calls from now on wait for it.
      if (waiter) running.set(workspaceId, { waiter: null });
      else running.delete(workspaceId);
      waiter?.(true);
    }
  };
}

export interface ReconcileWorker {
  start(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * The worker has connections of its own, so that it can record the end of a job while requests use all others. Each is
 * held for one short statement, except the one that listens.
 */
const queueConnections = 5;
/**
 * How long to wait for an interrupted runner to stop before the next one starts. It waits for its steps, and while one
 * hangs, no job of any workspace would run here. The steps that still run hold the locks of their workspaces.
 */
const stopTimeoutMs = 5_000;
const startRetryMs = 1_000;

/** Runs reconcile steps from the queue while this replica is registered. */
export function makeReconcileWorker(options: {
  database: Database;
  replica: Replica;
  log: Logger;
  concurrency: number;
  /** `attempt` counts from 1 while a step keeps failing. */
  reconcile: (workspaceId: string, attempt: number) => Promise<void>;
  /** Further kinds of jobs, by name. A task that throws is retried as often as its job says. */
  tasks?: Record<string, (payload: unknown) => Promise<void>>;
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
  let interrupt: (() => void) | null = null;
  let loop: Promise<void> | null = null;
  let onRunning: (() => void) | null = null;
  replica.onLost(() => interrupt?.());

  async function runOnce(): Promise<void> {
    await replica.join();
    if (stopping) return;
    const interrupted = new Promise<void>((resolve) => {
      interrupt = resolve;
    });
    const events = new EventEmitter() as WorkerEvents;
    // Jobs are locked in the pool's name. A replica that takes over from this one needs to know it.
    events.on('pool:create', ({ workerPool }) => void replica.setWorkers([workerPool.id]).catch(() => {}));
    // The runner gives up when it cannot record the end of jobs. It was seen once to hang then, and no job ran.
    const gaveUp = new Promise<'gave-up'>((resolve) => {
      events.on('pool:gracefulShutdown', () => resolve('gave-up'));
    });
    const reconcile = serializeByWorkspace(database, options.reconcile);
    runner = await run({
      pgPool: queue.pool,
      logger,
      events,
      concurrency: options.concurrency,
      noHandleSignals: true,
      pollInterval: 1_000,
      // Batch the ends of jobs, even with no delay: nothing catches the error of a single one, so losing the database at
      // that moment would crash the server.
      preset: { worker: { completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
      taskList: {
        ...options.tasks,
        async reconcile(payload: unknown, helpers: JobHelpers) {
          const { workspaceId } = payload as { workspaceId: string };
          await reconcile(workspaceId, helpers.job.attempts);
        },
      },
    });
    onRunning?.();
    const ended = runner.promise.catch((error) =>
      log.warn({ err: error }, 'the job runner ended; starting it again'),
    );
    const why = await Promise.race([interrupted, ended, gaveUp]);
    const stopped = runner.stop().catch(() => {});
    runner = null;
    if (stopping) return stopped;
    if (why === 'gave-up') log.warn('the job runner gave up; starting it again');
    await Promise.race([stopped, new Promise((resolve) => setTimeout(resolve, stopTimeoutMs).unref())]);
  }

  return {
    start() {
      const firstRun = new Promise<void>((resolve) => {
        onRunning = resolve;
      });
      loop = (async () => {
        while (!stopping) {
          try {
            await runOnce();
          } catch (error) {
            log.warn({ err: error }, 'the job runner could not start; trying again');
            await new Promise((resolve) => setTimeout(resolve, startRetryMs));
          }
        }
      })();
      return firstRun;
    },
    async stop() {
      stopping = true;
      interrupt?.();
      await loop;
      await replica.leave();
      await queue.close();
    },
  };
}
