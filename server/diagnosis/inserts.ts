/** Rows in one statement: ten columns each, below PostgreSQL's limit of 65,535 parameters. */
const maxRows = 5_000;
/** Beyond this the server answers that it is busy, and clients keep their samples. */
const maxWaitingRows = 100_000;

/**
 * Joins the rows of many requests into one insert per `everyMs`: ten thousand sessions must not become ten thousand
 * statements. `add` resolves when the rows are stored.
 */
export function makeInserts<Row>(options: {
  insert: (rows: Row[]) => Promise<unknown>;
  everyMs: number;
  /** Calls back once after that time, in tests at once. */
  after?: (ms: number, run: () => void) => void;
}): {
  /** True while so many rows wait that nothing may be added. */
  isFull(): boolean;
  add(rows: Row[]): Promise<void>;
  settled(): Promise<void>;
} {
  const { insert, after = (ms, run) => void setTimeout(run, ms) } = options;
  let waiting: { rows: Row[]; done: PromiseWithResolvers<void> }[] = [];
  let count = 0;
  let running: Promise<void> = Promise.resolve();
  let isDue = false;

  async function flush(): Promise<void> {
    isDue = false;
    const batch = waiting;
    waiting = [];
    count = 0;
    const rows = batch.flatMap((each) => each.rows);
    try {
      for (let at = 0; at < rows.length; at += maxRows) await insert(rows.slice(at, at + maxRows));
      for (const { done } of batch) done.resolve();
    } catch (error) {
      for (const { done } of batch) done.reject(error);
    }
  }

  return {
    isFull: () => count >= maxWaitingRows,
    async add(rows) {
      if (rows.length === 0) return;
      const done = Promise.withResolvers<void>();
      waiting.push({ rows, done });
      count += rows.length;
      if (!isDue) {
        isDue = true;
        after(options.everyMs, () => {
          running = running.then(flush);
        });
      }
      return done.promise;
    },
    settled: async () => {
      while (isDue || waiting.length > 0) {
        await Promise.allSettled(waiting.map(({ done }) => done.promise));
        await running;
      }
    },
  };
}
