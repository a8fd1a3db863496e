import type { Incident } from '@cde/api/diagnosis.ts';
import { type FoundIncident, findIncidents } from '@cde/diagnosis/incidents.ts';
import { and, asc, desc, eq, gte, inArray, isNull, lt, or, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import { incidents, recordings } from '../database/diagnosis-schema.ts';
import type { Database } from '../database/pool.ts';
import { users, workspaces } from '../database/schema.ts';
import { fromCursor, isUuid, toPage } from '../http/cursor.ts';
import { explainedMs, readEvidence } from './evidence.ts';

interface ListedRow {
  incident: typeof incidents.$inferSelect;
  owner: string;
  name: string;
}

const toIncident = ({ incident: row, owner, name }: ListedRow): Incident => ({
  id: row.id,
  session: row.recordingId,
  workspace: `${owner}/${name}`,
  at: row.at.toISOString(),
  endedAt: row.endedAt?.toISOString() ?? null,
  kind: row.kind,
  cause: row.cause,
  segment: row.segment,
  confidence: Math.round(row.confidence * 100) / 100,
  path: row.path,
  summary: row.summary,
  evidence: row.evidence,
  ruledOut: row.ruledOut,
  advice: row.advice,
});

/** What a client shows after a resume. */
const recentMs = 10 * 60_000;
const maxRecent = 50;

/** Explains recordings, and stores and lists their incidents. */
export function makeIncidents(deps: {
  database: Database;
  now: () => Date;
  /** The names of the satellites by the URL that clients use. */
  satelliteNames: () => Promise<ReadonlyMap<string, string>>;
}) {
  const { database, now, satelliteNames } = deps;
  const { db } = database;

  const select = () =>
    db
      .select({ incident: incidents, owner: users.username, name: workspaces.name })
      .from(incidents)
      .innerJoin(workspaces, eq(workspaces.id, incidents.workspaceId))
      .innerJoin(users, eq(users.id, workspaces.ownerId));

  async function store(recording: typeof recordings.$inferSelect, found: FoundIncident[], since: Date) {
    const relevant = found.filter(
      ({ from, to }) => from >= since.getTime() || to === null || to >= since.getTime(),
    );
    await db.transaction(async (tx) => {
      // Replicas explain one recording one after the other.
      await tx
        .select({ id: recordings.id })
        .from(recordings)
        .where(eq(recordings.id, recording.id))
        .for('update');
      const known = await tx
        .select({ id: incidents.id, kind: incidents.kind, at: incidents.at })
        .from(incidents)
        .where(
          and(
            eq(incidents.recordingId, recording.id),
            or(gte(incidents.at, since), isNull(incidents.endedAt)),
          ),
        );
      const gone = known.filter(
        ({ kind, at }) => !relevant.some((one) => one.kind === kind && one.from === at.getTime()),
      );
      if (gone.length > 0)
        await tx.delete(incidents).where(
          inArray(
            incidents.id,
            gone.map(({ id }) => id),
          ),
        );
      if (relevant.length === 0) return;
      await tx
        .insert(incidents)
        .values(
          relevant.map((one) => ({
            id: v7(),
            recordingId: recording.id,
            workspaceId: recording.workspaceId,
            userId: recording.userId,
            at: new Date(one.from),
            endedAt: one.to === null ? null : new Date(one.to),
            kind: one.kind,
            cause: one.cause,
            segment: one.segment,
            confidence: one.confidence,
            path: one.path,
            summary: one.summary,
            evidence: one.evidence,
            ruledOut: one.ruledOut,
            advice: one.advice,
          })),
        )
        .onConflictDoUpdate({
          target: [incidents.recordingId, incidents.kind, incidents.at],
          set: Object.fromEntries(
            [
              'ended_at',
              'cause',
              'segment',
              'confidence',
              'path',
              'summary',
              'evidence',
              'ruled_out',
              'advice',
            ].map((name) => [camel(name), sql.raw(`excluded.${name}`)]),
          ),
        });
    });
  }

  return {
    /** Finds the incidents of the recording's last hours, and names their causes. */
    async explain(recordingId: string): Promise<void> {
      const [recording] = await db.select().from(recordings).where(eq(recordings.id, recordingId));
      if (!recording) return;
      const names = await satelliteNames();
      const evidence = await readEvidence(db, recording, {
        now: now(),
        nameOf: (url) => names.get(url) ?? hostOf(url),
      });
      await store(recording, findIncidents(evidence), new Date(now().getTime() - explainedMs));
    },

    /** Those of a recording in the last ten minutes, oldest first. */
    async recent(recordingId: string): Promise<Incident[]> {
      const rows = await select()
        .where(
          and(
            eq(incidents.recordingId, recordingId),
            gte(
              sql`coalesce(${incidents.endedAt}, ${now()})`,
              new Date(now().getTime() - recentMs).toISOString(),
            ),
          ),
        )
        .orderBy(asc(incidents.at))
        .limit(maxRecent);
      return rows.map(toIncident);
    },

    /** Those of a user's own sessions or of one session, newest first. */
    async list(
      of: { userId: string; workspaceId: string | undefined } | { sessionId: string },
      query: {
        limit: number;
        after?: string | undefined;
        since?: string | undefined;
        until?: string | undefined;
      },
    ): Promise<{ items: Incident[]; next: string | null }> {
      const after = query.after === undefined ? undefined : readCursor(query.after);
      const rows = await select()
        .where(
          and(
            'sessionId' in of
              ? eq(incidents.recordingId, of.sessionId)
              : and(
                  eq(incidents.userId, of.userId),
                  of.workspaceId === undefined ? undefined : eq(incidents.workspaceId, of.workspaceId),
                ),
            query.since === undefined ? undefined : gte(incidents.at, new Date(query.since)),
            query.until === undefined ? undefined : lt(incidents.at, new Date(query.until)),
            after &&
              or(lt(incidents.at, after.at), and(eq(incidents.at, after.at), lt(incidents.id, after.id))),
          ),
        )
        .orderBy(desc(incidents.at), desc(incidents.id))
        .limit(query.limit + 1);
      return toPage(rows, query.limit, ({ incident: { at, id } }) => `${at.toISOString()} ${id}`, toIncident);
    },
  };
}

export type Incidents = ReturnType<typeof makeIncidents>;

const camel = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

function readCursor(cursor: string): { at: Date; id: string } {
  const split = (key: string) => key.split(' ') as [string, string?];
  const key = fromCursor(cursor, (text) => {
    const [at, id] = split(text);
    return !Number.isNaN(Date.parse(at)) && isUuid(id ?? '');
  });
  const [at, id] = split(key);
  return { at: new Date(at), id: id! };
}

/** The host of a URL, for satellites that are gone. */
export function hostOf(url: string): string {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}
