import type { LogLine } from '@cde/api/workspaces.ts';
import { and, asc, eq, gt, sql } from 'drizzle-orm';
import type { Queryable } from '../database/pool.ts';
import { buildLogs } from '../database/schema.ts';

export interface NewLine {
  at: Date;
  stage: LogLine['stage'];
  source: LogLine['source'];
  level: LogLine['level'];
  text: string;
  /** Of an agent's line: a line with the same process and number is stored once. */
  agent?: { process: string; seq: number };
}

/** Appends lines to a build's log, numbered in order, whoever else appends at the same moment. */
export async function appendLog(tx: Queryable, buildId: string, lines: readonly NewLine[]): Promise<void> {
  if (lines.length === 0) return;
  // Numbers are given under a lock of this build's log, so that a reader who has seen line N has seen all before it.
  await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtextextended(${buildId}, 1))`);
  const rows = lines.map(({ at, stage, source, level, text, agent }) => ({
    at: at.toISOString(),
    stage,
    source,
    level,
    // PostgreSQL's text cannot hold NUL.
    text: text.replaceAll('\0', '\uFFFD'),
    process: agent?.process ?? null,
    seq: agent?.seq ?? null,
  }));
  await tx.execute(sql`
    INSERT INTO build_logs (build_id, seq, at, stage, source, level, text, agent_process, agent_seq)
    SELECT ${buildId}::uuid,
           coalesce((SELECT max(seq) FROM build_logs WHERE build_id = ${buildId}::uuid), 0) + line.n,
           line.at, line.stage, line.source, line.level, line.text, line.process, line.seq
      FROM (
        SELECT given.*, row_number() OVER (ORDER BY given.ordinality) AS n
          FROM ROWS FROM (jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
                 AS (at timestamptz, stage text, source text, level text, text text, process text, seq integer)) WITH ORDINALITY
            AS given (at, stage, source, level, text, process, seq, ordinality)
         WHERE given.process IS NULL OR NOT EXISTS (
           SELECT 1 FROM build_logs b WHERE b.build_id = ${buildId}::uuid AND b.agent_process = given.process AND b.agent_seq = given.seq)
      ) AS line
    ON CONFLICT DO NOTHING`);
}

/** Lines after `after`, oldest first. */
export async function readLog(
  db: Queryable,
  buildId: string,
  after: number,
  limit: number,
): Promise<LogLine[]> {
  const rows = await db
    .select()
    .from(buildLogs)
    .where(and(eq(buildLogs.buildId, buildId), gt(buildLogs.seq, after)))
    .orderBy(asc(buildLogs.seq))
    .limit(limit);
  return rows.map((row) => ({
    seq: row.seq,
    at: row.at.toISOString(),
    stage: row.stage,
    source: row.source,
    level: row.level,
    text: row.text,
  }));
}
