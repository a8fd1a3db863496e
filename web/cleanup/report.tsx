import { type CleanupReport, getCleanupReport } from '@cde/api/cleanup.ts';
import { dayMs } from '@cde/api/durations.ts';
import type { ReportKey } from '@cde/api/idle-values.ts';
import { keepPreviousData, queryOptions, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { call } from '../client.ts';
import { Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';

type Row = CleanupReport['rows'][number];

const reportQuery = (days: number, by: ReportKey) =>
  queryOptions({
    queryKey: ['cleanup-report', days, by],
    queryFn: ({ signal }) => call(getCleanupReport, { query: { days, by }, signal }),
    placeholderData: keepPreviousData,
    staleTime: 60_000,
  });

const spans = [7, 30, 90, 400];
const tables: [ReportKey, string][] = [
  ['template', 'Template'],
  ['owner', 'Owner'],
  ['cluster', 'Cluster'],
  ['node-pool', 'Node pool'],
];
const sum = (rows: Row[], of: (row: Row) => number) => rows.reduce((total, row) => total + of(row), 0);
const hours = (count: number) =>
  `${count.toLocaleString('en', { maximumFractionDigits: count < 100 ? 1 : 0 })} h`;

/** The hours that cleanup saved: a chart per day, and tables. */
export function Report() {
  const [days, setDays] = useState(30);
  const [by, setBy] = useState<ReportKey>('template');
  const daily = useQuery(reportQuery(days, 'day'));
  const grouped = useQuery(reportQuery(days, by));
  return (
    <section className="panel" aria-labelledby="report-title">
      <header>
        <h2 id="report-title">Hours saved</h2>
        <select
          className="end build-select"
          aria-label="Days of the report"
          value={days}
          onChange={(event) => setDays(Number(event.target.value))}
        >
          {spans.map((count) => (
            <option key={count} value={count}>
              Last {count} days
            </option>
          ))}
        </select>
      </header>
      <div className="body stack tight">
        <Problem error={daily.error ?? grouped.error} retry={() => daily.refetch()} />
        {daily.isPending && !daily.error && (
          <p className="row muted" role="status">
            <Spinner /> Loading…
          </p>
        )}
        {daily.data && <Days report={daily.data} />}
        <div className="row">
          {tables.map(([key, word]) => (
            <button
              key={key}
              type="button"
              className="button small"
              aria-pressed={by === key}
              onClick={() => setBy(key)}
            >
              By {word.toLowerCase()}
            </button>
          ))}
        </div>
        {grouped.data && (
          <Table
            rows={grouped.data.rows}
            title={tables.find(([key]) => key === by)![1]}
            isOld={grouped.isPlaceholderData}
          />
        )}
      </div>
    </section>
  );
}

/** The next of 1, 2, 5, 10, 20, 50, …: the end of a scale. */
function roundedUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((end) => end >= value) ?? value;
}

function Days({ report }: { report: CleanupReport }) {
  const { rows } = report;
  const saved = sum(rows, (row) => row.stoppedHours);
  const running = sum(rows, (row) => row.runningHours);
  if (saved + running === 0)
    return <p className="muted">No workspace ran in this time. Hours saved per day appear here.</p>;
  const byDay = new Map(rows.map((row) => [row.key.slice(0, 10), row]));
  const days: string[] = [];
  for (let at = Date.parse(report.from); at < Date.parse(report.to); at += dayMs)
    days.push(new Date(at).toISOString().slice(0, 10));
  const top = roundedUp(Math.max(1, ...rows.map((row) => row.stoppedHours)));
  const words = `${hours(saved)} saved in ${sum(rows, (row) => row.stops).toLocaleString('en')} stops, ${Math.round((saved / (saved + running)) * 100)} % of the hours that workspaces would have run`;
  return (
    <figure className="bars">
      <figcaption>
        <span className="figure">{hours(saved)}</span>{' '}
        <span className="muted">{words.slice(hours(saved).length + 1)}</span>
      </figcaption>
      <div className="bars-plot">
        <div className="bars-scale" aria-hidden="true">
          <span>{hours(top)}</span>
          <span>{hours(top / 2)}</span>
          <span>0 h</span>
        </div>
        <svg
          viewBox={`0 0 ${days.length * 10} 100`}
          preserveAspectRatio="none"
          role="img"
          aria-label={`${words}; one bar a day`}
        >
          {[0, 50, 100].map((y) => (
            <line key={y} x1="0" x2={days.length * 10} y1={y} y2={y} />
          ))}
          {days.map((day, at) => {
            const row = byDay.get(day);
            const height = ((row?.stoppedHours ?? 0) / top) * 100;
            return (
              <rect key={day} x={at * 10 + 1} width="8" y={100 - height} height={height}>
                <title>{`${day}: ${hours(row?.stoppedHours ?? 0)} saved, ${hours(row?.runningHours ?? 0)} running, ${row?.stops ?? 0} stops`}</title>
              </rect>
            );
          })}
        </svg>
        <div className="bars-axis" aria-hidden="true">
          <span>{days[0]}</span>
          <span>hours per day</span>
          <span>{days.at(-1)}</span>
        </div>
      </div>
    </figure>
  );
}

function Table({ rows, title, isOld }: { rows: Row[]; title: string; isOld: boolean }) {
  if (rows.length === 0) return null;
  return (
    <div className="table-scroll" aria-busy={isOld}>
      <table>
        <thead>
          <tr>
            <th scope="col">{title}</th>
            <th scope="col" className="number">
              Saved
            </th>
            <th scope="col" className="number">
              Running
            </th>
            <th scope="col" className="number">
              Stops
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.key}>
              <td>{row.key || 'none'}</td>
              <td className="number">{hours(row.stoppedHours)}</td>
              <td className="number">{hours(row.runningHours)}</td>
              <td className="number">{row.stops}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
