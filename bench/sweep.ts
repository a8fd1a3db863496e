/**
 * One sweep over 10,000 running workspaces of which 50 are due to stop. Baseline, in alternating rounds: a sweep that reads all
 * workspaces and asks the policy about each. Prints the median time in ms, the queries of a sweep, and the ratio to the
 * baseline. Usage: node bench/sweep.ts
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEmbedded } from '@cde/server/database/embedded.ts';
import { migrate } from '@cde/server/database/migrate.ts';
import { openDatabase } from '@cde/server/database/pool.ts';
import { readActivity } from '@cde/server/idle/activity-store.ts';
import { makePolicyResolver } from '@cde/server/idle/effective.ts';
import { makeStopSections } from '@cde/server/idle/policy-source.ts';
import { evaluateRow } from '@cde/server/idle/reports.ts';
import { defaultCleanupPolicy } from '@cde/server/idle/settings.ts';
import { makeIdleSweep } from '@cde/server/idle/sweep.ts';
import { makeLog } from '@cde/server/log.ts';
import { sql } from 'drizzle-orm';
import pg from 'pg';

const workspaces = 10_000;
const due = 50;
const rounds = 9;
const folder = await mkdtemp(join(tmpdir(), 'cde-bench-'));
const embedded = await startEmbedded(folder);
const database = openDatabase(embedded.url);
await migrate(database.pool);
await database.pool.query(`
  INSERT INTO users (id, username, role) SELECT uuidv7(), 'user' || n, 'member' FROM generate_series(1, 100) n;
  INSERT INTO templates (id, name) VALUES (uuidv7(), 'plain');
  INSERT INTO template_versions (id, template_id, number, files, files_hash, content)
    SELECT uuidv7(), id, 1, '{}', '', '{"name":"plain","provider":"local","parameters":[]}' FROM templates;
  UPDATE templates SET active_version_id = (SELECT id FROM template_versions);
  INSERT INTO workspaces (id, owner_id, name, template_id, template_version_id, provider, desired, status, agent_build_id)
    SELECT uuidv7(), (SELECT id FROM users WHERE username = 'user' || (1 + n % 100)), 'workspace-' || n, t.id, t.active_version_id,
           'local', 'running', 'running', uuidv7()
      FROM generate_series(1, ${workspaces}) n, templates t;
  ANALYZE`);

/** Gives each workspace activity of a minute ago; of `due`, the last was two hours ago, and their agents have just said so. */
async function reset(): Promise<void> {
  await database.pool.query(`
    DELETE FROM activity_events;
    DELETE FROM workspace_activity;
    INSERT INTO workspace_activity (workspace_id, build_id, run_started_at, agent_started_at, signals, reported_at, decision, stops_at)
      SELECT w.id, w.agent_build_id, now() - interval '5 hours', now() - interval '5 hours',
             jsonb_build_object('terminal-input', jsonb_build_object('since', seen.at, 'at', seen.at, 'by', 'ada')), now(),
             jsonb_build_object('because', jsonb_build_object('kind', 'signal', 'signal', 'terminal-input', 'at', 'then'),
                                'stopsAt', seen.at + 3600000, 'cause', 'idle'),
             to_timestamp((seen.at + 3600000) / 1000.0)
        FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM workspaces) w,
             LATERAL (SELECT round(extract(epoch FROM now()) * 1000) - CASE WHEN w.n <= ${due} THEN 7200000 ELSE 60000 END AS at) seen;
    ANALYZE workspace_activity`);
}

const now = () => new Date();
const deps = {
  database,
  bus: { publish() {} } as never,
  now,
  stopSection: makeStopSections(database.db),
  boundsChangedAt: async () => 0,
  bounds: async () => ({ ...defaultCleanupPolicy, brakePercent: 100 }),
  resolve: makePolicyResolver({ now }).resolve,
};
const sweep = makeIdleSweep({ ...deps, log: makeLog('silent'), requestStop: async () => {} });
async function sweepAll(): Promise<number> {
  const rows = await readActivity(
    database.db,
    sql`WHERE w.status = 'running' AND w.agent_build_id = a.build_id`,
  );
  let stops = 0;
  for (const row of rows) {
    const { evaluated } = await evaluateRow(deps, row, Date.now());
    if (evaluated.kind === 'stop') stops++;
  }
  return stops;
}

let queries = 0;
const { query } = pg.Client.prototype;
pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
  queries++;
  return Reflect.apply(query, this, args);
} as typeof query;

const timed = async (work: () => Promise<number>) => {
  const began = performance.now();
  const stops = await work();
  if (stops !== due) throw new Error(`${stops} stops instead of ${due}`);
  return performance.now() - began;
};
const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
const ours: number[] = [];
const all: number[] = [];
let counted = 0;
for (let round = 0; round < rounds; round++) {
  await reset();
  all.push(await timed(sweepAll));
  queries = 0;
  ours.push(await timed(async () => (await sweep.runOnce()).stops));
  counted = queries;
}
const [mine, baseline] = [median(ours), median(all)];
console.log(`${workspaces} workspaces, ${due} due: ${mine.toFixed(0)} ms, ${counted} queries`);
console.log(`reading all: ${baseline.toFixed(0)} ms; ratio ${(mine / baseline).toFixed(2)}`);
await database.close();
await embedded.stop();
await rm(folder, { recursive: true, force: true });
