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

const hourMs = 3_600_000;
const ranges: [hours: number, label: string, tickMinutes: number][] = [
  [1, 'Last hour', 15],
  [6, 'Last 6 hours', 60],
  [24, 'Last 24 hours', 360],
  [72, 'Last 3 days', 1440],
  [168, 'Last 7 days', 1440],
];
const shownAtFirst = 8;
// As often as agents report.
const askEveryMs = 30_000;

/** What kept a workspace awake and what stopped it: a chart of the last days, and the list. */
export function Timeline({ workspace }: { workspace: Workspace }) {
  const client = useQueryClient();
  const [chosen, setChosen] = useState<number>();
  const query = useInfiniteQuery({ ...activityEventsQuery(workspace.id), refetchInterval: askEveryMs });
  useEffect(() => {
    if (workspace.status) void client.invalidateQueries({ queryKey: ['activity-events', workspace.id] });
  }, [client, workspace.id, workspace.status]);
  const events = rowsOf(query.data);
  const hours = chosen ?? fittingHours(events, query.hasNextPage);
  if (query.error instanceof CallError && query.error.status === 404) return null;
  return (
    <section className="panel" aria-labelledby="timeline-title">
      <header>
        <h2 id="timeline-title">Activity</h2>
        <select
          className="end build-select"
          aria-label="Time to show"
          value={hours}
          onChange={(event) => setChosen(Number(event.target.value))}
        >
          {ranges.map(([count, label]) => (
            <option key={count} value={count}>
              {label}
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
            <Chart events={events} hours={hours} runsNow={workspace.status === 'running'} />
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

/** A day, or the shortest range that has everything of a younger workspace. */
function fittingHours(events: readonly ActivityEvent[], hasMore: boolean): number {
  if (hasMore) return 24;
  const oldest = Math.min(...events.map(({ at }) => Date.parse(at)));
  const ageMs = Date.now() - oldest;
  return ranges.find(([count]) => count >= 24 || ageMs < count * hourMs)![0];
}

function Chart({ events, hours, runsNow }: { events: ActivityEvent[]; hours: number; runsNow: boolean }) {
  const to = useNow(60_000);
  const from = to - hours * hourMs;
  const rows = chartRows(events, {
    from,
    to,
    runsNow,
    titleOf: (event) =>
      `${signalText(event.signal!, event.by)}: ${moment(event.at)}${event.until ? ` – ${moment(event.until)}` : ''}`,
  });
  const ticks = ticksBetween(from, to, ranges.find(([count]) => count === hours)![2]);
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
          <span className="chart-now">now</span>
        </div>
      </div>
    </figure>
  );
}

/** Round times of day, as seen from midnight: each quarter of an hour, or each midnight. */
function ticksBetween(from: number, to: number, everyMinutes: number): { share: number; label: string }[] {
  const ticks = [];
  const at = new Date(from);
  at.setHours(0, 0, 0, 0);
  for (; at.getTime() < to; at.setMinutes(at.getMinutes() + everyMinutes)) {
    if (at.getTime() <= from) continue;
    const isMidnight = at.getHours() === 0 && at.getMinutes() === 0;
    ticks.push({
      share: (at.getTime() - from) / (to - from),
      label: isMidnight
        ? at.toLocaleDateString('en-GB', { weekday: 'short', day: 'numeric' })
        : at.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' }),
    });
  }
  // The others would stick out, or cover the end.
  return ticks.filter(({ share }) => share > 0.03 && share < 0.85);
}

/** Of a stretch of activity. What was seen once has none. */
const lengthOf = ({ kind, at, until }: ActivityEvent) =>
  kind === 'signal' && until !== null ? Date.parse(until) - Date.parse(at) : 0;

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
              {lengthOf(event) >= 1000 && <span className="muted"> for {spanText(lengthOf(event))}</span>}
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
