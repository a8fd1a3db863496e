import type { LogLine } from '@cde/api/workspaces.ts';
import { and, asc, eq, gt, max, sql } from 'drizzle-orm';
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

/**
 * How long a build's log may grow by what its agent says: many times the noisiest installation, and no more,
 * since a script that talks without end would fill the database of everybody.
 */
export const mostLines = 20_000;

/** The lines for which there is room, and a word where it ends. What the server itself says always has room. */
async function fitting(tx: Queryable, buildId: string, lines: readonly NewLine[]): Promise<NewLine[]> {
  const own = lines.filter((line) => !line.agent);
  if (own.length === lines.length) return own;
  const [last] = await tx
    .select({ seq: max(buildLogs.seq) })
    .from(buildLogs)
    .where(eq(buildLogs.buildId, buildId));
  const room = mostLines - (last?.seq ?? 0);
  if (room <= 0) return own;
  if (lines.length < room) return [...lines];
  const text = `The log of this build is full (${mostLines} lines); what its agent says from here on is dropped.`;
  const { at, stage } = lines[0]!;
  return [...lines.slice(0, room - 1), { at, stage, source: 'server', level: 'warn', text }];
}

/** Appends lines to a build's log, numbered in order, whoever else appends at the same moment. */
export async function appendLog(tx: Queryable, buildId: string, given: readonly NewLine[]): Promise<void> {
  if (given.length === 0) return;
  // Numbers are given under a lock of this build's log, so that a reader who has seen line N has seen all before it.
  await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtextextended(${buildId}, 1))`);
  const lines = await fitting(tx, buildId, given);
  if (lines.length === 0) return;
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
