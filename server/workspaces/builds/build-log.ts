import type { LogLine } from '@cde/api/workspaces.ts';
import { and, asc, eq, gt, max, sql } from 'drizzle-orm';
import type { Queryable } from '../../database/pool.ts';
import { buildLogSizes, buildLogs } from '../../database/schema.ts';

export interface NewLine {
  at: Date;
  stage: LogLine['stage'];
  source: LogLine['source'];
  level: LogLine['level'];
  text: string;
  /** Identifies a line from an agent: one with the same process and number is stored once. */
  agent?: { process: string; seq: number };
}

/**
 * How much of an agent's output is stored per build. Many times the noisiest installation, but bounded, because a script
 * that prints forever would fill the database for everyone.
 */
export const maxLines = 20_000;
export const maxBytes = 2 * 1024 * 1024;
/** What a line uses in the database besides its text. */
const lineOverhead = 100;

const bytesOf = (line: NewLine) => Buffer.byteLength(line.text) + lineOverhead;
const fullText = `The log of this build is full (at most ${maxBytes / 1024 / 1024} MiB and ${maxLines} lines). Further output of the agent and the startup script is not stored.`;

/**
 * Drops lines of the agent that exceed the limits, and adds a line that says where the log is cut. The server's own
 * lines always fit.
 */
async function withinLimits(tx: Queryable, buildId: string, lines: readonly NewLine[]): Promise<NewLine[]> {
  const [size] = await tx.select().from(buildLogSizes).where(eq(buildLogSizes.buildId, buildId));
  const [last] = await tx
    .select({ seq: max(buildLogs.seq) })
    .from(buildLogs)
    .where(eq(buildLogs.buildId, buildId));
  let isCut = size?.cut ?? false;
  let bytes = size?.bytes ?? 0;
  const kept: NewLine[] = [];
  for (const line of lines) {
    // Reserve the last line for the one that says that the log is cut.
    const fits = bytes + bytesOf(line) <= maxBytes && (last?.seq ?? 0) + kept.length < maxLines - 1;
    if (!line.agent || (!isCut && fits)) {
      kept.push(line);
      bytes += bytesOf(line);
    } else if (!isCut) {
      isCut = true;
      kept.push({ at: line.at, stage: line.stage, source: 'server', level: 'warn', text: fullText });
    }
  }
  if (kept.length > 0)
    await tx
      .insert(buildLogSizes)
      .values({ buildId, bytes, cut: isCut })
      .onConflictDoUpdate({ target: buildLogSizes.buildId, set: { bytes, cut: isCut } });
  return kept;
}

/** Appends lines to a build's log. Numbers are consecutive, also with concurrent writers. */
export async function appendLog(tx: Queryable, buildId: string, given: readonly NewLine[]): Promise<void> {
  if (given.length === 0) return;
  // The lock guarantees that a reader who has seen line N has seen all lines before it.
  await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtextextended(${buildId}, 1))`);
  const lines = await withinLimits(tx, buildId, given);
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

/**
 * The log as users other than the owner see it. The startup and shutdown scripts may print the owner's files and secrets,
 * so each run of their lines is replaced by one line that says so, with the number of the last.
 */
export function redactScriptOutput(lines: readonly LogLine[]): LogLine[] {
  const shown: LogLine[] = [];
  let hidden = 0;
  for (const [index, line] of lines.entries()) {
    const { source } = line;
    if (source !== 'startup' && source !== 'shutdown') {
      shown.push(line);
      continue;
    }
    hidden += 1;
    if (lines[index + 1]?.source === source) continue;
    const count = hidden === 1 ? '1 line' : `${hidden} lines`;
    shown.push({
      ...line,
      level: 'info',
      text: `(${count} of the ${source} script, visible only to the workspace's owner.)`,
    });
    hidden = 0;
  }
  return shown;
}
