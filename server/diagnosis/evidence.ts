import type { BuildEvent, Evidence, SessionEvent, SessionWindow } from '@cde/diagnosis/evidence.ts';
import { and, asc, desc, eq, gte, inArray, isNull, or } from 'drizzle-orm';
import {
  connectionEvents,
  type recordings,
  satelliteWindows,
  sessionEvents,
  sessionWindows,
  workspaceWindows,
} from '../database/diagnosis-schema.ts';
import type { Db } from '../database/pool.ts';
import { builds } from '../database/schema.ts';
import { hostFromRow, legFromRow } from './samples.ts';

/** Incidents of this time are explained again with everything that is known. */
export const explainedMs = 2 * 3600_000;
/** Builds and events that began a little earlier can be the cause. */
const beforeMs = 120_000;
const maxRows = 5_000;

type RecordingRow = typeof recordings.$inferSelect;

/** Gathers what is known of a recording and the time around it. */
export async function readEvidence(
  db: Db,
  recording: RecordingRow,
  options: { now: Date; nameOf: (url: string) => string },
): Promise<Evidence> {
  const { id, workspaceId } = recording;
  const since = new Date(options.now.getTime() - explainedMs);
  const around = new Date(since.getTime() - beforeMs);
  const [events, windows, workspace, happened, satellites, ran] = await Promise.all([
    db
      .select()
      .from(sessionEvents)
      .where(eq(sessionEvents.recordingId, id))
      .orderBy(asc(sessionEvents.at))
      .limit(maxRows),
    db
      .select()
      .from(sessionWindows)
      .where(and(eq(sessionWindows.recordingId, id), gte(sessionWindows.at, since)))
      .orderBy(asc(sessionWindows.at))
      .limit(maxRows),
    db
      .select()
      .from(workspaceWindows)
      .where(and(eq(workspaceWindows.workspaceId, workspaceId), gte(workspaceWindows.at, around)))
      .orderBy(asc(workspaceWindows.at))
      .limit(maxRows),
    db
      .select()
      .from(connectionEvents)
      .where(
        and(
          gte(connectionEvents.at, around),
          or(eq(connectionEvents.workspaceId, workspaceId), isNull(connectionEvents.workspaceId)),
        ),
      )
      .orderBy(desc(connectionEvents.at))
      .limit(maxRows),
    readSatellites(db, id, around, options.nameOf),
    db
      .select()
      .from(builds)
      .where(
        and(
          eq(builds.workspaceId, workspaceId),
          or(gte(builds.createdAt, around), isNull(builds.finishedAt)),
        ),
      )
      .orderBy(desc(builds.number))
      .limit(100),
  ]);
  return {
    session: {
      startedAt: recording.startedAt.getTime(),
      knownUntil: recording.knownUntil.getTime(),
      windows: windows.map(toWindow),
      events: events.map(({ at, event }) => ({ ...event, at: at.getTime() }) as SessionEvent),
    },
    workspace: workspace.map(({ at, ms, outOfMemoryKills, host }) => ({
      at: at.getTime(),
      ...{ ms, outOfMemoryKills, host: hostFromRow(host) },
    })),
    agentStarts: happened.filter(({ kind }) => kind === 'agent-started').map(({ at }) => at.getTime()),
    satelliteEvents: happened.flatMap(({ at, kind, satellite }) =>
      satellite === null
        ? []
        : [
            {
              at: at.getTime(),
              satellite,
              kind: kind === 'satellite-draining' ? ('draining' as const) : ('started' as const),
            },
          ],
    ),
    satellites,
    builds: ran.map(toBuildEvent),
    nameOf: options.nameOf,
  };
}

/** The load of the satellites that the session used. */
async function readSatellites(db: Db, recordingId: string, since: Date, nameOf: (url: string) => string) {
  const used = await db
    .selectDistinct({ via: sessionWindows.pathVia })
    .from(sessionWindows)
    .where(
      and(
        eq(sessionWindows.recordingId, recordingId),
        eq(sessionWindows.pathKind, 'relay'),
        gte(sessionWindows.at, since),
      ),
    );
  const names = used.flatMap(({ via }) => (via === null ? [] : [nameOf(via)]));
  if (names.length === 0) return [];
  const rows = await db
    .select()
    .from(satelliteWindows)
    .where(and(inArray(satelliteWindows.satellite, names), gte(satelliteWindows.at, since)))
    .orderBy(asc(satelliteWindows.at))
    .limit(maxRows);
  return rows.map(({ at, ...row }) => ({ ...row, at: at.getTime() }));
}

const toWindow = (row: typeof sessionWindows.$inferSelect): SessionWindow => ({
  at: row.at.getTime(),
  ms: row.ms,
  path:
    row.pathKind === null
      ? null
      : { kind: row.pathKind as NonNullable<SessionWindow['path']>['kind'], via: row.pathVia ?? '' },
  toSatellite: legFromRow(row.toSatellite),
  satelliteToAgent: legFromRow(row.satelliteToAgent),
  toAgent: legFromRow(row.toAgent),
  bytes: row.bytes,
  host: hostFromRow(row.host),
});

const toBuildEvent = (row: typeof builds.$inferSelect): BuildEvent => ({
  transition: row.transition === 'update' ? 'start' : row.transition,
  restart: row.transition === 'update' || row.options.restart === true,
  requestedAt: row.createdAt.getTime(),
  finishedAt: row.finishedAt?.getTime() ?? null,
  by: row.initiator === 'system' ? 'cde' : row.initiator,
  reason: row.reason,
  policy: row.options.stopCause ?? null,
  endCause: row.options.endCause ?? null,
});
