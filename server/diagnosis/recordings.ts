import type { AgentWindow, ClientEvent, ClientWindow, postRecording } from '@cde/api/diagnosis.ts';
import { maxReportAgeMs, windowMs } from '@cde/api/diagnosis-values.ts';
import { Problem } from '@cde/api/problem.ts';
import { busyReason } from '@cde/diagnosis/evidence.ts';
import { and, eq, gt, lt, sql } from 'drizzle-orm';
import type { z } from 'zod';
import {
  agentBatches,
  recordings,
  sessionEvents,
  sessionWindows,
  workspaceWindows,
} from '../database/diagnosis-schema.ts';
import type { Database } from '../database/pool.ts';
import { makeInserts } from './inserts.ts';
import type { Partitions } from './partitions.ts';
import { hostToRow, legToRow } from './samples.ts';

export type RecordingBatch = z.output<NonNullable<typeof postRecording.body>>;

/** Rows of all requests within this time become one statement. */
const insertEveryMs = 250;
/** More than the worst day has. */
const maxEvents = 2_000;
/** Windows begin ten seconds apart. Those that are closer are repeated or invented. */
const minWindowDistanceMs = windowMs / 2;
/** When satellites have reported what they saw, and agents what was noteworthy. */
const explainAgainMs = 20_000;
/** What an agent reports may explain what a client reported this long ago. */
const aroundMs = 120_000;
/**
 * Windows become minutes this much later, so that a session in use is rolled up every five minutes. What was delivered late
 * is rolled up sooner, but not before it is stored.
 */
const rollUpAfterMs = 300_000;
const storedAfterMs = 15_000;

/** Keeps windows in order that begin far enough apart and after `last`. Ages become moments by the server's clock. */
function placeWindows<Window extends { agoMs: number }>(windows: Window[], now: Date, last: Date) {
  let before = last.getTime();
  return windows.flatMap(({ agoMs, ...window }) => {
    const at = now.getTime() - agoMs;
    if (at - before < minWindowDistanceMs) return [];
    before = at;
    return [{ ...window, at: new Date(at) }];
  });
}

/** Before anything of a batch is stored: it is repeated later. */
function refuseIf(isFull: boolean): void {
  if (isFull)
    throw new Problem('server-busy', 'The server takes no more samples at the moment.', { retryAfter: 30 });
}

const eventRow = (recordingId: string, now: Date, { agoMs, ...event }: ClientEvent) => ({
  recordingId,
  at: new Date(now.getTime() - agoMs),
  event,
});

const rollUpTime = (oldest: Date, now: Date) =>
  new Date(Math.max(now.getTime() + storedAfterMs, oldest.getTime() + rollUpAfterMs));

/** What a batch says of the session as a whole: its path, and whether it ended. */
function stateAfter(
  { windows, events }: RecordingBatch,
  now: Date,
  regions: ReadonlyMap<string, string>,
): Partial<typeof recordings.$inferInsert> {
  const ended = events.find(({ kind }) => kind === 'ended');
  const seen = [...windows, ...events]
    .sort((one, other) => other.agoMs - one.agoMs)
    .flatMap((one) => ('path' in one && one.path !== null ? one.path : []))
    .at(-1);
  return {
    ...(seen && {
      pathKind: seen.kind,
      pathVia: seen.via,
      region: seen.kind === 'relay' ? (regions.get(seen.via) ?? null) : null,
    }),
    ...(ended && { endedAt: new Date(now.getTime() - ended.agoMs) }),
  };
}

/** A window with such a round trip may be part of a slow spell. */
const maybeSlowMs = 100;

/** Whether there may be something to explain. */
export const isNoteworthy = ({ events, windows }: RecordingBatch): boolean =>
  events.some(({ kind }) => kind !== 'opened' && kind !== 'moved') ||
  windows.some(({ toAgent }) => (toAgent?.p95 ?? 0) > maybeSlowMs);

/** Stores what clients and agents report. */
export function makeRecordings(deps: {
  database: Database;
  partitions: Pick<Partitions, 'ensure'>;
  now: () => Date;
  /** The region of a satellite by its URL. */
  regions: () => Promise<ReadonlyMap<string, string>>;
}) {
  const { database, partitions, now, regions } = deps;
  const { db } = database;
  let isFull = false;
  const ofSessions = makeInserts<typeof sessionWindows.$inferInsert>({
    everyMs: insertEveryMs,
    async insert(rows) {
      await partitions.ensure(
        ['session_windows'],
        rows.map(({ at }) => at),
      );
      await db.insert(sessionWindows).values(rows);
    },
  });
  const ofWorkspaces = makeInserts<typeof workspaceWindows.$inferInsert>({
    everyMs: insertEveryMs,
    async insert(rows) {
      await partitions.ensure(
        ['workspace_windows'],
        rows.map(({ at }) => at),
      );
      await db.insert(workspaceWindows).values(rows);
    },
  });

  /** Stores the events and notes the batch; null if it was stored before. Returns what the recording was before. */
  async function noteBatch(userId: string, workspaceId: string, batch: RecordingBatch, at: Date) {
    const { id, client } = batch;
    const startedAt = new Date(at.getTime() - Math.min(batch.startedAgoMs, maxReportAgeMs));
    const state = stateAfter(batch, at, await regions());
    return db.transaction(async (tx) => {
      await tx
        .insert(recordings)
        .values({
          ...{ id, workspaceId, userId, startedAt, knownUntil: at, lastBatch: 0, eventCount: 0 },
          lastWindowAt: new Date(startedAt.getTime() - windowMs),
          clientVersion: client.version,
          platform: client.platform,
        })
        .onConflictDoNothing();
      const [row] = await tx.select().from(recordings).where(eq(recordings.id, id)).for('update');
      if (!row || row.userId !== userId || row.workspaceId !== workspaceId)
        throw new Problem('bad-request', 'This is the id of another recording.', {
          hint: 'Choose a random UUID for each session.',
        });
      if (row.lastBatch >= batch.batch) return null;
      const events = batch.events.slice(0, Math.max(0, maxEvents - row.eventCount));
      if (events.length > 0)
        await tx.insert(sessionEvents).values(events.map((event) => eventRow(id, at, event)));
      const windows = isFull ? [] : placeWindows<ClientWindow>(batch.windows, at, row.lastWindowAt);
      await tx
        .update(recordings)
        .set({
          knownUntil: at,
          lastBatch: batch.batch,
          eventCount: row.eventCount + events.length,
          lastWindowAt: windows.at(-1)?.at ?? row.lastWindowAt,
          ...(isNoteworthy(batch) && { explainAt: new Date(at.getTime() + explainAgainMs) }),
          ...state,
          ...(windows.length > 0 && {
            rollUpAt: sql`coalesce(${recordings.rollUpAt}, ${rollUpTime(windows[0]!.at, at)})`,
          }),
        })
        .where(eq(recordings.id, id));
      return windows;
    });
  }

  return {
    /** Stores a batch of a client; false if it was stored before. */
    async addBatch(userId: string, workspaceId: string, batch: RecordingBatch): Promise<boolean> {
      refuseIf(ofSessions.isFull());
      const windows = await noteBatch(userId, workspaceId, batch, now());
      if (!windows) return false;
      await ofSessions.add(
        windows.map((window) => ({
          recordingId: batch.id,
          at: window.at,
          ms: Math.round(window.ms),
          pathKind: window.path?.kind ?? null,
          pathVia: window.path?.via ?? null,
          toSatellite: legToRow(window.toSatellite),
          satelliteToAgent: legToRow(window.satelliteToAgent),
          toAgent: legToRow(window.toAgent),
          bytes: Math.round(window.bytes),
          host: hostToRow(window.host),
        })),
      );
      return true;
    },

    /** Stores a batch of an agent. */
    async addConditions(
      workspaceId: string,
      { process, batch, windows }: { process: string; batch: number; windows: AgentWindow[] },
    ): Promise<void> {
      refuseIf(ofWorkspaces.isFull());
      const at = now();
      const placed = await db.transaction(async (tx) => {
        const oldest = new Date(at.getTime() - maxReportAgeMs);
        await tx
          .insert(agentBatches)
          .values({ workspaceId, process, lastBatch: 0, lastWindowAt: oldest })
          .onConflictDoNothing();
        const [row] = await tx
          .select()
          .from(agentBatches)
          .where(eq(agentBatches.workspaceId, workspaceId))
          .for('update');
        if (!row || (row.process === process && row.lastBatch >= batch)) return [];
        const inOrder = placeWindows(windows, at, row.lastWindowAt);
        await tx
          .update(agentBatches)
          .set({ process, lastBatch: batch, lastWindowAt: inOrder.at(-1)?.at ?? row.lastWindowAt })
          .where(eq(agentBatches.workspaceId, workspaceId));
        const explains = ({ host, outOfMemoryKills }: AgentWindow) =>
          outOfMemoryKills > 0 || busyReason(host) !== null;
        if (windows.some(explains))
          await tx
            .update(recordings)
            .set({ explainAt: at })
            .where(
              and(
                eq(recordings.workspaceId, workspaceId),
                gt(recordings.knownUntil, new Date(at.getTime() - aroundMs)),
              ),
            );
        return inOrder;
      });
      await ofWorkspaces.add(
        placed.map((window) => ({
          workspaceId,
          at: window.at,
          ms: Math.round(window.ms),
          outOfMemoryKills: window.outOfMemoryKills,
          host: hostToRow(window.host),
        })),
      );
    },

    /** While samples take all the space they can have, only events are stored. */
    setFull(full: boolean): void {
      isFull = full;
    },

    /** Recordings whose incidents are due to be explained again. Each is returned to one caller. */
    async takeDue(limit: number): Promise<string[]> {
      const due = await db
        .update(recordings)
        .set({ explainAt: null })
        .where(
          and(
            lt(recordings.explainAt, now()),
            sql`${recordings.id} IN (SELECT id FROM recordings WHERE explain_at < ${now()} ORDER BY explain_at LIMIT ${limit} FOR UPDATE SKIP LOCKED)`,
          ),
        )
        .returning({ id: recordings.id });
      return due.map(({ id }) => id);
    },

    async settled(): Promise<void> {
      await Promise.all([ofSessions.settled(), ofWorkspaces.settled()]);
    },
  };
}

export type Recordings = ReturnType<typeof makeRecordings>;
