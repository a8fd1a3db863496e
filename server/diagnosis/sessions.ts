import type { PathKind } from '@cde/api/agent.ts';
import { Problem } from '@cde/api/problem.ts';
import type { Session } from '@cde/api/sessions.ts';
import { and, desc, eq, gt, gte, isNotNull, isNull, lt, lte, or, type SQL, sql } from 'drizzle-orm';
import { alias } from 'drizzle-orm/pg-core';
import { incidents, recordings } from '../database/diagnosis-schema.ts';
import type { Database } from '../database/pool.ts';
import { users, workspaces } from '../database/schema.ts';
import type { UserActor } from '../http/actor.ts';
import { fromCursor, isUuid, toPage } from '../http/cursor.ts';
import { grantFor, isAllowed } from '../identity/auth/authorize.ts';

/** A client reports every half minute while its session is used. */
const activeMs = 120_000;

export interface SessionFilter {
  limit: number;
  after?: string | undefined;
  user?: string | undefined;
  workspaceId?: string | undefined;
  state?: 'active' | 'past' | undefined;
  since?: string | undefined;
  until?: string | undefined;
  path?: PathKind | undefined;
  region?: string | undefined;
  clientVersion?: string | undefined;
}

export const seesAllSessions = (actor: UserActor): boolean => grantFor(actor, 'session:read') === 'any';

const owners = alias(users, 'owners');

/** Lists and finds recorded sessions. */
export function makeSessions(deps: {
  database: Database;
  now: () => Date;
  /** The name of a satellite by its URL. */
  nameOf: () => Promise<(url: string) => string>;
}) {
  const { db } = deps.database;

  const select = () =>
    db
      .select({
        recording: recordings,
        user: users.username,
        owner: owners.username,
        name: workspaces.name,
        incidents: sql<number>`(SELECT count(*)::int FROM ${incidents} WHERE ${incidents.recordingId} = ${recordings.id})`,
      })
      .from(recordings)
      .innerJoin(users, eq(users.id, recordings.userId))
      .innerJoin(workspaces, eq(workspaces.id, recordings.workspaceId))
      .innerJoin(owners, eq(owners.id, workspaces.ownerId));

  type Row = Awaited<ReturnType<typeof select>>[number];

  const activeSince = () => new Date(deps.now().getTime() - activeMs);

  function toSession(
    { recording, user, owner, name, incidents }: Row,
    nameOf: (url: string) => string,
  ): Session {
    const { pathKind, pathVia, endedAt } = recording;
    return {
      id: recording.id,
      user,
      workspace: `${owner}/${name}`,
      workspaceId: recording.workspaceId,
      client: { version: recording.clientVersion, platform: recording.platform },
      path: pathOf(pathKind, pathVia, nameOf),
      region: recording.region,
      startedAt: recording.startedAt.toISOString(),
      lastSeenAt: recording.knownUntil.toISOString(),
      endedAt: endedAt?.toISOString() ?? null,
      isActive: endedAt === null && recording.knownUntil > activeSince(),
      incidents,
    };
  }

  function conditionOf(actor: UserActor, filter: SessionFilter): SQL | undefined {
    const after = filter.after === undefined ? undefined : readCursor(filter.after);
    const { state } = filter;
    return and(
      seesAllSessions(actor) ? undefined : eq(recordings.userId, actor.userId),
      filter.user === undefined ? undefined : eq(users.username, filter.user),
      filter.workspaceId === undefined ? undefined : eq(recordings.workspaceId, filter.workspaceId),
      state === 'active'
        ? and(isNull(recordings.endedAt), gt(recordings.knownUntil, activeSince()))
        : undefined,
      state === 'past'
        ? or(isNotNull(recordings.endedAt), lte(recordings.knownUntil, activeSince()))
        : undefined,
      filter.since === undefined ? undefined : gte(recordings.knownUntil, new Date(filter.since)),
      filter.until === undefined ? undefined : lte(recordings.startedAt, new Date(filter.until)),
      filter.path === undefined ? undefined : eq(recordings.pathKind, filter.path),
      filter.region === undefined ? undefined : eq(recordings.region, filter.region),
      filter.clientVersion === undefined ? undefined : eq(recordings.clientVersion, filter.clientVersion),
      after &&
        or(
          lt(recordings.startedAt, after.at),
          and(eq(recordings.startedAt, after.at), lt(recordings.id, after.id)),
        ),
    );
  }

  return {
    async list(actor: UserActor, filter: SessionFilter): Promise<{ items: Session[]; next: string | null }> {
      const rows = await select()
        .where(conditionOf(actor, filter))
        .orderBy(desc(recordings.startedAt), desc(recordings.id))
        .limit(filter.limit + 1);
      const nameOf = await deps.nameOf();
      return toPage(
        rows,
        filter.limit,
        ({ recording: { startedAt, id } }) => `${startedAt.toISOString()} ${id}`,
        (row) => toSession(row, nameOf),
      );
    },

    /** Throws `session-not-found`, also if the actor cannot see it. */
    async find(
      actor: UserActor,
      id: string,
    ): Promise<{ row: typeof recordings.$inferSelect; session: Session; isForeign: boolean }> {
      const [found] = await select().where(eq(recordings.id, id));
      if (!found || !isAllowed(actor, 'session:read', { ownerId: found.recording.userId }))
        throw new Problem('session-not-found', `There is no session ${id}, or you cannot see it.`);
      return {
        row: found.recording,
        session: toSession(found, await deps.nameOf()),
        isForeign: found.recording.userId !== actor.userId,
      };
    },

    /** Those of these ids, as far as they exist. */
    async byIds(ids: string[]): Promise<Map<string, Session>> {
      if (ids.length === 0) return new Map();
      const rows = await select().where(sql`${recordings.id} = ANY (${sql.param(ids)}::uuid[])`);
      const nameOf = await deps.nameOf();
      return new Map(rows.map((row) => [row.recording.id, toSession(row, nameOf)]));
    },

    async countActive(userId: string | null): Promise<number> {
      return db.$count(
        recordings,
        and(
          isNull(recordings.endedAt),
          gt(recordings.knownUntil, activeSince()),
          userId === null ? undefined : eq(recordings.userId, userId),
        ),
      );
    },
  };
}

export type Sessions = ReturnType<typeof makeSessions>;

export const pathOf = (kind: string | null, via: string | null, nameOf: (url: string) => string) =>
  kind === null ? null : { kind: kind as PathKind, via: kind === 'relay' ? nameOf(via ?? '') : (via ?? '') };

function readCursor(cursor: string): { at: Date; id: string } {
  const split = (key: string) => key.split(' ') as [string, string?];
  const key = fromCursor(cursor, (text) => {
    const [at, id] = split(text);
    return !Number.isNaN(Date.parse(at)) && isUuid(id ?? '');
  });
  const [at, id] = split(key);
  return { at: new Date(at), id: id! };
}
