import type { NetworkGrouping } from '@cde/api/session-values.ts';
import type { NetworkGroup, NetworkOverview } from '@cde/api/sessions.ts';
import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { milliseconds } from '../connection/leg-charts.tsx';
import { useTitle } from '../shell.tsx';
import { duration } from '../ui/format.ts';
import { Spinner } from '../ui/icons.tsx';
import { List, type Listed } from '../ui/list.tsx';
import { Problem } from '../ui/problem.tsx';
import { HeatMap } from './heat-map.tsx';
import { OverTime } from './over-time.tsx';
import { percent } from './percent.ts';
import { groupingNames, networkQuery } from './queries.ts';
import { type NetworkRange, networkRanges } from './ranges.ts';
import './network.css';

/** How the sessions of everybody were connected, and what went wrong. Roles that see only their own get their own. */
export function NetworkPage() {
  useTitle('Network');
  const search = useSearch({ from: '/signed-in/network' });
  const navigate = useNavigate();
  const range = search.range ?? '24h';
  const by = search.by ?? 'region';
  const query = useQuery(networkQuery(range, by));
  const choose = (change: { range?: NetworkRange; by?: NetworkGrouping }) =>
    navigate({ to: '/network', search: { ...search, ...change }, replace: true });
  return (
    <main id="main">
      <div className="page-head">
        <h1>Network</h1>
        <select
          aria-label="Time to show"
          value={range}
          onChange={({ target }) => choose({ range: target.value as NetworkRange })}
        >
          {Object.entries(networkRanges).map(([key, { label }]) => (
            <option key={key} value={key}>
              {label}
            </option>
          ))}
        </select>
        <p>
          How {query.data?.ofEverybody === false ? 'your' : 'all'} sessions of cde were connected. Time counts
          as slow if one answer in twenty took 150 ms or longer.
        </p>
      </div>
      <Problem error={query.error} retry={() => query.refetch()} />
      {query.data ? (
        query.data.total.sessions === 0 && query.data.causes.length === 0 ? (
          <div className="panel empty">
            <strong>No session was used in this time</strong>
            <p>
              Latency, incidents and paths appear here about five minutes after somebody uses{' '}
              <code>cde ssh</code>.
            </p>
          </div>
        ) : (
          <Overview overview={query.data} by={by} onBy={(chosen) => choose({ by: chosen })} query={query} />
        )
      ) : (
        !query.error && (
          <p className="row muted" role="status">
            <Spinner /> Loading…
          </p>
        )
      )}
    </main>
  );
}

function Overview({
  overview,
  by,
  onBy,
  query,
}: {
  overview: NetworkOverview;
  by: NetworkGrouping;
  onBy: (by: NetworkGrouping) => void;
  query: Listed;
}) {
  const { total, activeSessions } = overview;
  const incidents = overview.causes.reduce((sum, cause) => sum + cause.incidents, 0);
  return (
    <div className="stack">
      <dl className="figures">
        <Figure name="Active now" value={String(activeSessions)} />
        <Figure name="Sessions" value={String(total.sessions)} />
        <Figure name="In use" value={duration(total.ms)} />
        <Figure name="Slow" value={percent(total.slowMs, total.ms)} />
        <Figure name="Round trip" value={total.toAgent ? milliseconds(total.toAgent.p50) : '–'} />
        <Figure name="p95" value={total.toAgent ? milliseconds(total.toAgent.p95) : '–'} />
        <Figure name="Incidents" value={String(incidents)} />
      </dl>
      <OverTime overview={overview} />
      <HeatMap overview={overview} />
      <section className="stack tight" aria-labelledby="groups-title">
        <div className="row section-head">
          <h2 id="groups-title">By</h2>
          <select
            aria-label="Group by"
            value={by}
            onChange={({ target }) => onBy(target.value as NetworkGrouping)}
          >
            {Object.entries(groupingNames).map(([key, name]) => (
              <option key={key} value={key}>
                {name}
              </option>
            ))}
          </select>
        </div>
        <Groups groups={overview.groups} by={by} query={query} />
      </section>
      <section className="stack tight" aria-labelledby="causes-title">
        <h2 id="causes-title">Incidents by cause</h2>
        <Causes causes={overview.causes} query={query} />
      </section>
      <section className="stack tight" aria-labelledby="worst-title">
        <h2 id="worst-title">Sessions that lost the most time</h2>
        <Worst worst={overview.worst} query={query} />
      </section>
    </div>
  );
}

function Figure({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

const leg = (summary: NetworkGroup['toAgent']) =>
  summary && (
    <span className="nowrap">
      {milliseconds(summary.p50)} / {milliseconds(summary.p95)}
    </span>
  );

function Groups({ groups, by, query }: { groups: NetworkGroup[]; by: NetworkGrouping; query: Listed }) {
  return (
    <List
      query={query}
      rows={groups}
      keyOf={({ key }) => key}
      empty={<p>No session was used in this time. What sessions record appears here after five minutes.</p>}
      columns={[
        {
          title: groupingNames[by],
          is: 'name',
          cell: ({ key }) =>
            by === 'workspace' ? <ConnectionLink workspace={key} /> : by === 'hour' ? `${key}:00` : key,
        },
        { title: 'Sessions', cell: ({ sessions }) => sessions },
        { title: 'In use', className: 'nowrap', cell: ({ ms }) => duration(ms) },
        {
          title: 'Slow',
          className: 'nowrap',
          cell: ({ slowMs, ms }) => (slowMs > 0 ? percent(slowMs, ms) : ''),
        },
        { title: 'Median / p95', cell: ({ toAgent }) => leg(toAgent) },
        { title: 'To the satellite', cell: ({ toSatellite }) => leg(toSatellite) },
        { title: 'Satellite to agent', cell: ({ satelliteToAgent }) => leg(satelliteToAgent) },
        { title: 'Incidents', cell: ({ incidents }) => incidents || '' },
      ]}
    />
  );
}

function Causes({ causes, query }: { causes: NetworkOverview['causes']; query: Listed }) {
  return (
    <List
      query={query}
      rows={causes}
      keyOf={({ cause }) => cause}
      empty={
        <>
          <strong>Nothing went wrong</strong>
          <p>No session was interrupted or slow in this time.</p>
        </>
      }
      columns={[
        { title: 'Cause', is: 'name', cell: ({ cause }) => cause },
        { title: 'Where', cell: ({ segment }) => segment },
        { title: 'Incidents', cell: ({ incidents }) => incidents },
        { title: 'Sessions', cell: ({ sessions }) => sessions },
        { title: 'Users', cell: ({ users }) => users },
        { title: 'Together', className: 'nowrap', cell: ({ ms }) => duration(ms) },
      ]}
    />
  );
}

function ConnectionLink({ workspace, session }: { workspace: string; session?: string }) {
  const [owner = '', name = ''] = workspace.split('/');
  return (
    <Link
      to="/workspaces/$owner/$name/connection"
      params={{ owner, name }}
      search={{ range: '2d', ...(session !== undefined && { session }) }}
    >
      <strong>{workspace}</strong>
    </Link>
  );
}

function Worst({ worst, query }: { worst: NetworkOverview['worst']; query: Listed }) {
  return (
    <List
      query={query}
      rows={worst}
      keyOf={({ session }) => session.id}
      empty={
        <>
          <strong>None</strong>
          <p>No session had noticeable latency or an interruption in this time.</p>
        </>
      }
      columns={[
        {
          title: 'Workspace',
          is: 'name',
          cell: ({ session }) => <ConnectionLink workspace={session.workspace} session={session.id} />,
        },
        { title: 'Path', cell: ({ session: { path } }) => path && `${path.kind} ${path.via}` },
        { title: 'Client', cell: ({ session: { client } }) => `${client.version}, ${client.platform}` },
        { title: 'In use', className: 'nowrap', cell: ({ ms }) => duration(ms) },
        { title: 'Slow', className: 'nowrap', cell: ({ slowMs, ms }) => percent(slowMs, ms) },
        { title: 'p95', className: 'nowrap', cell: ({ p95 }) => p95 !== null && milliseconds(p95) },
        { title: 'Incidents', cell: ({ incidents }) => incidents || '' },
      ]}
    />
  );
}
