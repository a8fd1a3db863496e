import { type ActivityEvent, signalSources } from '@cde/api/activity.ts';
import { clockText, signalText, spanText } from '@cde/api/idle-text.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { useInfiniteQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { CallError } from '../client.ts';
import { rowsOf } from '../paging.ts';
import { moment } from '../ui/format.ts';
import { Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { useNow } from '../ui/time.tsx';
import { activityEventsQuery } from './queries.ts';
import { type ChartRow, chartRows } from './stretches.ts';
import './idle.css';

const dayMs = 86_400_000;
const ranges = [1, 3, 7] as const;
const shownAtFirst = 8;
// As often as agents report.
const askEveryMs = 30_000;

/** What kept a workspace awake and what stopped it: a chart of the last days, and the list. */
export function Timeline({ workspace }: { workspace: Workspace }) {
  const client = useQueryClient();
  const [days, setDays] = useState<number>(1);
  const query = useInfiniteQuery({ ...activityEventsQuery(workspace.id), refetchInterval: askEveryMs });
  useEffect(() => {
    if (workspace.status) void client.invalidateQueries({ queryKey: ['activity-events', workspace.id] });
  }, [client, workspace.id, workspace.status]);
  const events = rowsOf(query.data);
  if (query.error instanceof CallError && query.error.status === 404) return null;
  return (
    <section className="panel" aria-labelledby="timeline-title">
      <header>
        <h2 id="timeline-title">Activity</h2>
        <select
          className="end build-select"
          aria-label="Days to show"
          value={days}
          onChange={(event) => setDays(Number(event.target.value))}
        >
          {ranges.map((count) => (
            <option key={count} value={count}>
              {count === 1 ? 'Last 24 hours' : `Last ${count} days`}
            </option>
          ))}
        </select>
      </header>
      <div className="body stack tight">
        <Problem error={query.error} retry={() => query.refetch()} />
        {query.isPending ? (
          <p className="row muted" role="status">
            <Spinner /> Loading…
          </p>
        ) : events.length === 0 ? (
          <p className="muted">
            Nothing has happened yet. What keeps {workspace.name} awake, and what stops it, appears here.
          </p>
        ) : (
          <>
            <Chart events={events} days={days} runsNow={workspace.status === 'running'} />
            <Events
              events={events}
              more={query.hasNextPage ? () => query.fetchNextPage() : undefined}
              isFetching={query.isFetchingNextPage}
            />
          </>
        )}
      </div>
    </section>
  );
}

const nameOf = ({ key }: ChartRow) => (key === 'running' ? 'running' : signalText(key).replace(/^an? /, ''));

function Chart({ events, days, runsNow }: { events: ActivityEvent[]; days: number; runsNow: boolean }) {
  const to = useNow(60_000);
  const from = to - days * dayMs;
  const rows = chartRows(events, {
    from,
    to,
    runsNow,
    titleOf: (event) =>
      `${signalText(event.signal!, event.by)}: ${moment(event.at)}${event.until ? ` – ${moment(event.until)}` : ''}`,
  });
  const ticks = ticksBetween(from, to, days);
  return (
    <figure className="activity-chart">
      {rows.map((row) => (
        <div className="chart-row" key={row.key}>
          <span className="chart-name">{nameOf(row)}</span>
          <svg
            className={row.key === 'running' ? 'running' : signalSources[row.key]}
            viewBox="0 0 1000 12"
            preserveAspectRatio="none"
            role="img"
            aria-label={`${nameOf(row)}: ${row.stretches.length} ${row.stretches.length === 1 ? 'stretch' : 'stretches'}`}
          >
            {ticks.map(({ share }) => (
              <line key={share} x1={share * 1000} x2={share * 1000} y1="0" y2="12" />
            ))}
            {row.stretches.map(({ from: start, to: end, title }) => (
              // At least so wide that it can be seen.
              <rect
                key={start}
                x={Math.min(start * 1000, 996)}
                width={Math.max(4, (end - start) * 1000)}
                y="1"
                height="10"
              >
                <title>{title}</title>
              </rect>
            ))}
          </svg>
        </div>
      ))}
      <div className="chart-row chart-ticks" aria-hidden="true">
        <span className="chart-name" />
        <div>
          {ticks.map(({ share, label }) => (
            <span key={share} style={{ left: `${share * 100}%` }}>
              {label}
            </span>
          ))}
        </div>
      </div>
    </figure>
  );
}

/** Every six hours of a day, else each midnight. */
function ticksBetween(from: number, to: number, days: number): { share: number; label: string }[] {
  const ticks = [];
  const at = new Date(from);
  at.setMinutes(0, 0, 0);
  while (at.getTime() < to) {
    at.setHours(at.getHours() + 1);
    if (at.getTime() >= to || at.getHours() % (days === 1 ? 6 : 24) !== 0) continue;
    const isDay = days > 1 || at.getHours() === 0;
    ticks.push({
      share: (at.getTime() - from) / (to - from),
      label: isDay
        ? at.toLocaleDateString('en-GB', { weekday: 'short', day: 'numeric' })
        : at.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' }),
    });
  }
  // The last would stick out.
  return ticks.filter(({ share }) => share < 0.97);
}

function Events({
  events,
  more,
  isFetching,
}: {
  events: ActivityEvent[];
  more: (() => unknown) | undefined;
  isFetching: boolean;
}) {
  const [all, setAll] = useState(false);
  const now = useNow(60_000);
  const shown = all ? events : events.slice(0, shownAtFirst);
  return (
    <>
      <ol className="activity-events" aria-label="History, newest first">
        {shown.map((event) => (
          <li key={event.id}>
            <time dateTime={event.at} title={moment(event.at)}>
              {clockText(event.at, now)}
            </time>
            <span>
              {event.text}
              {event.kind === 'signal' && event.until && (
                <span className="muted"> {spanText(Date.parse(event.until) - Date.parse(event.at))}</span>
              )}
            </span>
          </li>
        ))}
      </ol>
      {(all ? more : events.length > shownAtFirst || more) && (
        <p className="more">
          <button
            type="button"
            className="button small"
            disabled={isFetching}
            onClick={() => (all ? more?.() : setAll(true))}
          >
            {isFetching ? 'Loading…' : 'Show more'}
          </button>
        </p>
      )}
    </>
  );
}
