import { dayMs } from '@cde/api/durations.ts';
import { Problem } from '@cde/api/problem.ts';
import type { Resolution } from '@cde/api/session-values.ts';
import type {
  getNetwork,
  getSessionWindows,
  listSessions,
  Session,
  SessionStretch,
} from '@cde/api/sessions.ts';
import type { z } from 'zod';
import type { Database } from '../database/pool.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { fromCursor, toPage } from '../http/cursor.ts';
import { findWorkspace } from '../workspaces/store.ts';
import { makeForeignReads } from './foreign-reads.ts';
import { readNetwork } from './network.ts';
import type { Retention } from './retention.ts';
import { makeSessions, seesAllSessions } from './sessions.ts';
import { chooseResolution, readStretches, toSessionStretch } from './stretches.ts';

type Query<E extends { query?: z.ZodType }> = z.output<NonNullable<E['query']>>;
const maxNetworkRangeMs = 400 * dayMs;

/** Reads recorded sessions for people: their own, and with a permission those of others, which leaves an audit entry. */
export function makeHistory(deps: {
  database: Database;
  now: () => Date;
  regions: () => Promise<ReadonlyMap<string, string>>;
  nameOf: () => Promise<(url: string) => string>;
  retention: Retention;
}) {
  const { database, now, regions, nameOf, retention } = deps;
  const sessions = makeSessions({ database, now, nameOf });
  const noteForeignRead = makeForeignReads(database, now);

  async function view(caller: Caller<UserActor>, id: string) {
    const found = await sessions.find(caller.actor, id);
    if (found.isForeign)
      await noteForeignRead(caller, {
        action: 'session.view',
        targetId: id,
        targetName: found.session.workspace,
      });
    return found;
  }

  return {
    /** Finds a session that the caller can see. Throws `session-not-found`. */
    view,

    async list(
      caller: Caller<UserActor>,
      { workspace, ...query }: Query<typeof listSessions>,
    ): Promise<{ items: Session[]; next: string | null }> {
      const { actor } = caller;
      const found =
        workspace === undefined
          ? undefined
          : await findWorkspace(database.db, actor, workspace, 'workspace:read');
      const workspaceId = found?.row.id;
      const page = await sessions.list(actor, { ...query, workspaceId });
      if (page.items.some(({ user }) => user !== actor.username))
        await noteForeignRead(caller, {
          action: 'session.list',
          targetId: query.user ?? workspaceId ?? 'all',
          targetName: query.user ?? (found ? `${found.owner}/${found.row.name}` : 'all sessions'),
        });
      return page;
    },

    async windows(caller: Caller<UserActor>, id: string, query: Query<typeof getSessionWindows>) {
      const { row, session } = await view(caller, id);
      const to = query.to === undefined ? now() : new Date(query.to);
      const from = new Date(query.from ?? row.startedAt);
      const resolution: Resolution =
        query.resolution === 'auto' ? chooseResolution({ from, to }, now(), retention) : query.resolution;
      const isMoment = (text: string) => !Number.isNaN(Date.parse(text));
      const after = query.after === undefined ? null : Date.parse(fromCursor(query.after, isMoment));
      const known = await regions();
      const stretches = await readStretches(
        database,
        row,
        {
          ...{ to, resolution, limit: query.limit + 2 },
          from: after === null ? from : new Date(after + 1),
        },
        (via) => known.get(via) ?? null,
      );
      // The stretch that the last page ended with reaches beyond the moment after it.
      const rest = stretches.filter(({ at }) => after === null || at.getTime() > after);
      const satelliteName = await nameOf();
      const page = toPage(
        rest,
        query.limit,
        ({ at }) => at.toISOString(),
        (stretch): SessionStretch => toSessionStretch(stretch, satelliteName),
      );
      return { ...page, session, resolution };
    },

    async network(caller: Caller<UserActor>, query: Query<typeof getNetwork>) {
      const { actor } = caller;
      const to = query.to === undefined ? now() : new Date(query.to);
      const from = query.from === undefined ? new Date(to.getTime() - dayMs) : new Date(query.from);
      if (from >= to || to.getTime() - from.getTime() > maxNetworkRangeMs)
        throw new Problem('bad-request', 'The range must begin before it ends and be at most 400 days long.');
      const ofEverybody = seesAllSessions(actor);
      const overview = await readNetwork(
        { database, sessions },
        { from, to, by: query.by, timeZone: query.timeZone, userId: ofEverybody ? null : actor.userId },
      );
      if (ofEverybody)
        await noteForeignRead(caller, {
          action: 'session.list',
          targetId: 'all',
          targetName: 'all sessions',
        });
      return overview;
    },
  };
}
