import type { Incident } from '@cde/api/diagnosis.ts';
import type { Resolution } from '@cde/api/session-values.ts';
import type { ReactNode } from 'react';
import { useMemo } from 'react';
import { Chart, type Series } from '../charts/chart.tsx';
import { moment } from '../ui/format.ts';
import type { Range } from './queries.ts';
import { lossPercent, type Point, pathBands, type TableRow, tableRows } from './series.ts';
import './connection.css';

export const milliseconds = (value: number): string =>
  value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${Number(value.toFixed(value < 10 ? 1 : 0))} ms`;
const cell = (value: number | null) => (value === null ? '–' : milliseconds(value));

const resolutionNames: Record<Resolution, string> = {
  '10s': 'ten seconds',
  '1m': 'minute',
  '1h': 'hour',
};

/** Round trips by leg and lost probes over time, with the paths and incidents above them, and all of it as a table. */
export function LegCharts({
  points,
  range,
  resolution,
  incidents,
  marks,
}: {
  points: Point[];
  range: Range;
  resolution: Resolution;
  incidents: Incident[];
  marks: ReactNode;
}) {
  const times = useMemo(() => points.map(({ at }) => at), [points]);
  const legs = useMemo(() => legSeries(points), [points]);
  const losses = useMemo(() => lossSeries(points), [points]);
  const shaded = incidents.map(({ at, endedAt, kind }) => ({
    from: Date.parse(at),
    to: endedAt === null ? range.to : Date.parse(endedAt),
    color: kind === 'slow' ? '--warn-soft' : '--bad-soft',
  }));
  const summary = summaryOf(points, incidents.length);
  return (
    <section className="panel" aria-labelledby="trips-title">
      <header>
        <h2 id="trips-title">Round trips</h2>
        <span className="end muted small-text">one point per {resolutionNames[resolution]}</span>
      </header>
      <div className="body stack tight">
        <div className="strip-row">
          <span className="strip-name" aria-hidden="true">
            Path
          </span>
          <PathStrip points={points} range={range} resolution={resolution} />
        </div>
        {marks}
        <Chart
          label={summary}
          {...{ times, series: legs, shaded, from: range.from, to: range.to }}
          height={260}
          unit={milliseconds}
          atLeast={40}
        />
        <h3 className="chart-title">Probes without an answer</h3>
        <Chart
          label="The share of probes without an answer"
          {...{ times, series: losses, shaded, from: range.from, to: range.to }}
          height={110}
          unit={(value) => `${Math.round(value)} %`}
          atLeast={10}
        />
        <AsTable points={points} range={range} />
      </div>
    </section>
  );
}

function legSeries(points: Point[]): Series[] {
  const values = (of: (stretch: NonNullable<Point['stretch']>) => number | undefined) =>
    points.map(({ stretch }) => (stretch === null ? null : (of(stretch) ?? null)));
  return [
    {
      label: 'To the agent, p95',
      color: '--bad',
      as: 'thin-line',
      values: values(({ toAgent }) => toAgent?.p95),
    },
    { label: 'To the agent, median', color: '--text', values: values(({ toAgent }) => toAgent?.p50) },
    { label: 'To the satellite', color: '--busy', values: values(({ toSatellite }) => toSatellite?.p50) },
    {
      label: 'Satellite to agent',
      color: '--ok',
      values: values(({ satelliteToAgent }) => satelliteToAgent?.p50),
    },
  ];
}

const lossSeries = (points: Point[]): Series[] => [
  {
    label: 'Without an answer',
    color: '--bad',
    as: 'bars',
    values: points.map(({ stretch }) => (stretch === null ? null : lossPercent(stretch))),
  },
];

function summaryOf(points: Point[], incidents: number): string {
  const medians = points
    .flatMap(({ stretch }) => stretch?.toAgent?.p50 ?? [])
    .sort((one, other) => one - other);
  if (medians.length === 0) return 'Round trips by leg: nothing was measured in this time.';
  const slowest = Math.max(...points.map(({ stretch }) => stretch?.toAgent?.p95 ?? 0));
  return (
    `Round trips by leg over time. To the agent usually ${milliseconds(medians[Math.floor(medians.length / 2)]!)}, ` +
    `p95 at most ${milliseconds(slowest)}; ${incidents} ${incidents === 1 ? 'incident' : 'incidents'}. The table below has the values.`
  );
}

function PathStrip({ points, range, resolution }: { points: Point[]; range: Range; resolution: Resolution }) {
  const bands = useMemo(() => pathBands(points, resolution), [points, resolution]);
  const share = (at: number) =>
    Math.min(100, Math.max(0, ((at - range.from) / (range.to - range.from)) * 100));
  return (
    <ul className="strip" aria-label="Paths over time">
      {bands.map(({ from, to, kind, label }) => (
        <li
          key={from}
          className={`band ${kind ?? 'no-path'}`}
          style={{ left: `${share(from)}%`, width: `${share(to) - share(from)}%` }}
          title={`${label}: ${moment(new Date(from).toISOString())} – ${moment(new Date(to).toISOString())}`}
        >
          {label}
        </li>
      ))}
    </ul>
  );
}

function AsTable({ points, range }: { points: Point[]; range: Range }) {
  const rows: TableRow[] = useMemo(() => tableRows(points, range), [points, range]);
  return (
    <details className="chart-details">
      <summary>Show as a table</summary>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, also by keys. */}
      <section className="list" tabIndex={0} aria-label="Round trips as a table">
        <table>
          <thead>
            <tr>
              <th scope="col">Time</th>
              <th scope="col">Path</th>
              <th scope="col">Median</th>
              <th scope="col">p95</th>
              <th scope="col">To the satellite</th>
              <th scope="col">Satellite to agent</th>
              <th scope="col">Unanswered</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.at}>
                <th scope="row" className="nowrap">
                  {moment(new Date(row.at).toISOString())}
                </th>
                <td>{row.path}</td>
                <td>{cell(row.p50)}</td>
                <td>{cell(row.p95)}</td>
                <td>{cell(row.toSatellite)}</td>
                <td>{cell(row.satelliteToAgent)}</td>
                <td>{row.unanswered || ''}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      <p className="hint">The highest values of each time.</p>
    </details>
  );
}
