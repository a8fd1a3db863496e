import type { Incident } from '@cde/api/diagnosis.ts';
import type { Session } from '@cde/api/sessions.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { useQueries, useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useMemo, useState } from 'react';
import { CallError } from '../client.ts';
import { useTitle } from '../shell.tsx';
import { moment } from '../ui/format.ts';
import { Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { useNow } from '../ui/time.tsx';
import { workspaceQuery } from '../workspaces/queries.ts';
import { IncidentList, IncidentMarks } from './incidents.tsx';
import { LegCharts } from './leg-charts.tsx';
import {
  askEveryMs,
  incidentsQuery,
  maxSessions,
  type Range,
  sessionsQuery,
  windowsQuery,
} from './queries.ts';
import { type RangeName, rangeNames, ranges } from './ranges.ts';
import { joinStretches } from './series.ts';

/** How the sessions with a workspace went: round trips by leg, loss, paths and incidents. */
export function ConnectionPage() {
  const { owner, name } = useParams({ from: '/signed-in/workspaces/$owner/$name/connection' });
  useTitle(`Connection of ${owner}/${name}`);
  const query = useQuery(workspaceQuery(`${owner}~${name}`));
  const gone = query.error instanceof CallError && query.error.status === 404;
  return (
    <main id="main">
      <div className="page-head">
        <h1 className="crumbs">
          <Link to="/workspaces/$owner/$name" params={{ owner, name }}>
            {owner}/{name}
          </Link>
          <span>Connection</span>
        </h1>
        <p>How the sessions of cde with this workspace went. Terminals in the dashboard are not recorded.</p>
      </div>
      {gone ? (
        <p className="panel empty">
          <strong>
            There is no workspace {owner}/{name}, or you cannot see it
          </strong>
        </p>
      ) : query.error && !query.data ? (
        <Problem error={query.error} retry={() => query.refetch()} />
      ) : query.data ? (
        <Connection workspace={query.data} />
      ) : (
        <Loading />
      )}
    </main>
  );
}

const Loading = () => (
  <p className="row muted" role="status">
    <Spinner /> Loading…
  </p>
);

function Connection({ workspace }: { workspace: Workspace }) {
  const search = useSearch({ from: '/signed-in/workspaces/$owner/$name/connection' });
  const navigate = useNavigate();
  const rangeName: RangeName = search.range ?? '6h';
  const { ms } = ranges[rangeName];
  const now = useNow(rangeName === '30d' ? 10 * askEveryMs : askEveryMs);
  const range = useMemo(() => ({ from: now - ms, to: now }), [now, ms]);
  const sessions = useQuery(sessionsQuery(workspace.id, range));
  const listed = sessions.data?.items ?? [];
  const chosen = listed.filter(({ id }) => search.session === undefined || id === search.session);
  const choose = (change: { range?: RangeName; session?: string | undefined }) =>
    navigate({
      to: '/workspaces/$owner/$name/connection',
      params: { owner: workspace.owner, name: workspace.name },
      search: { ...search, ...change },
      replace: true,
    });
  return (
    <div className="stack">
      <div className="row chart-controls">
        <fieldset className="segmented">
          <legend className="hidden">Time to show</legend>
          {rangeNames.map((key) => (
            <label key={key} className="choice">
              <input
                type="radio"
                name="range"
                checked={key === rangeName}
                onChange={() => choose({ range: key })}
              />
              <span>{ranges[key].label}</span>
            </label>
          ))}
        </fieldset>
        {listed.length > 1 && (
          <select
            aria-label="Session to show"
            value={search.session ?? ''}
            onChange={({ target }) => choose({ session: target.value || undefined })}
          >
            <option value="">All sessions, the slowest of each moment</option>
            {listed.map((session) => (
              <option key={session.id} value={session.id}>
                {sessionLabel(session)}
              </option>
            ))}
          </select>
        )}
      </div>
      <Problem error={sessions.error} retry={() => sessions.refetch()} />
      {sessions.isPending && !sessions.error ? (
        <Loading />
      ) : sessions.error ? null : chosen.length === 0 ? (
        <NoSessions workspace={workspace} range={rangeName} />
      ) : (
        <Timeline sessions={chosen.slice(0, maxSessions)} range={range} isCut={chosen.length > maxSessions} />
      )}
    </div>
  );
}

const sessionLabel = ({ startedAt, isActive, client, user }: Session) =>
  `${moment(startedAt)}${isActive ? ', active' : ''} (${user}, cde ${client.version}, ${client.platform})`;

function NoSessions({ workspace, range }: { workspace: Workspace; range: RangeName }) {
  return (
    <div className="panel empty">
      <strong>No recorded sessions in this time</strong>
      <p>
        {range === '30d'
          ? 'Round trips, loss, paths and incidents appear here while somebody uses '
          : 'Choose a longer time, or use '}
        <code>cde ssh {workspace.name}</code>.
      </p>
    </div>
  );
}

function Timeline({ sessions, range, isCut }: { sessions: Session[]; range: Range; isCut: boolean }) {
  const windows = useQueries({ queries: sessions.map((session) => windowsQuery(session, range)) });
  const incidents = useQuery(incidentsQuery(sessions, range));
  const [opened, setOpened] = useState<string | null>(null);
  const loaded = windows.map(({ data }) => data);
  const resolution = loaded.find((data) => data !== undefined)?.resolution ?? '10s';
  // biome-ignore lint/correctness/useExhaustiveDependencies: the list is new at each render, its parts are not.
  const points = useMemo(
    () =>
      joinStretches(
        loaded.map((data) => data?.items ?? []),
        resolution,
      ),
    [resolution, ...loaded],
  );
  const error = windows.find((query) => query.error)?.error ?? incidents.error;
  const found: Incident[] = incidents.data ?? [];
  return (
    <>
      <Problem
        error={error}
        retry={() => {
          for (const query of windows) void query.refetch();
          void incidents.refetch();
        }}
      />
      {isCut && (
        <p className="hint">
          The {maxSessions} newest sessions of this time are shown. Choose one to see another.
        </p>
      )}
      {windows.some(({ isPending }) => isPending) && points.length === 0 ? (
        !error && <Loading />
      ) : (
        <LegCharts
          points={points}
          range={range}
          resolution={resolution}
          incidents={found}
          marks={<IncidentMarks incidents={found} range={range} opened={opened} onOpen={setOpened} />}
        />
      )}
      <IncidentList incidents={found} isPending={incidents.isPending} opened={opened} />
    </>
  );
}
