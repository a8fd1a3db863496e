import { listIncidents } from '@cde/api/diagnosis.ts';
import { getSessionWindows, listSessions, type Session } from '@cde/api/sessions.ts';
import { keepPreviousData, queryOptions } from '@tanstack/react-query';
import { call, callAll } from '../client.ts';

/** As often as clients report. */
export const askEveryMs = 15_000;
/** Sessions whose samples are shown at once, the newest. */
export const maxSessions = 20;

export interface Range {
  from: number;
  to: number;
}

const iso = (at: number) => new Date(at).toISOString();

/** The sessions of a workspace that were used in the range, the newest first. */
export const sessionsQuery = (workspaceId: string, range: Range) =>
  queryOptions({
    queryKey: ['sessions', workspaceId, range],
    queryFn: ({ signal }) =>
      call(listSessions, {
        query: {
          ...{ workspace: workspaceId, limit: 100 },
          ...{ since: iso(range.from), until: iso(range.to) },
        },
        signal,
      }),
    placeholderData: keepPreviousData,
  });

export const windowsQuery = (session: Pick<Session, 'id'>, range: Range) =>
  queryOptions({
    queryKey: ['session-windows', session.id, range],
    queryFn: ({ signal }) =>
      call(getSessionWindows, {
        params: { session: session.id },
        query: { from: iso(range.from), to: iso(range.to) },
        signal,
      }),
    placeholderData: keepPreviousData,
  });

/** The incidents of sessions in the range, oldest first. */
export const incidentsQuery = (sessions: readonly Pick<Session, 'id'>[], range: Range) =>
  queryOptions({
    queryKey: ['session-incidents', sessions.map(({ id }) => id), range],
    queryFn: async ({ signal }) => {
      // One that began before the range may reach into it.
      const query = { since: iso(range.from - 3_600_000), until: iso(range.to) };
      const lists = await Promise.all(
        sessions.map(({ id: session }) => callAll(listIncidents, { query: { ...query, session }, signal })),
      );
      return lists
        .flat()
        .filter(({ endedAt }) => endedAt === null || Date.parse(endedAt) >= range.from)
        .sort((one, other) => (one.at < other.at ? -1 : 1));
    },
    placeholderData: keepPreviousData,
  });
