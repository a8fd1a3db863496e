import type { NetworkOverview } from '@cde/api/sessions.ts';
import { useMemo } from 'react';
import { Chart, type Series } from '../charts/chart.tsx';
import { moment } from '../ui/format.ts';
import { percent } from './percent.ts';

const colors = ['--busy', '--ok', '--warn', '--bad', '--accent', '--muted', '--text'];
/** More lines cannot be told apart. */
const maxSeries = colors.length;

/** The values of each key at each time; keys with the most first. The rest is left out. */
function tabulate<T extends { at: string }>(
  rows: T[],
  keyOf: (row: T) => string,
  weightOf: (row: T) => number,
) {
  const times = [...new Set(rows.map(({ at }) => Date.parse(at)))].sort((one, other) => one - other);
  const weights = new Map<string, number>();
  const cells = new Map<string, T>();
  for (const row of rows) {
    weights.set(keyOf(row), (weights.get(keyOf(row)) ?? 0) + weightOf(row));
    cells.set(`${keyOf(row)} ${Date.parse(row.at)}`, row);
  }
  const keys = [...weights]
    .sort(([, one], [, other]) => other - one)
    .map(([key]) => key)
    .slice(0, maxSeries);
  return { times, keys, cell: (key: string, at: number) => cells.get(`${key} ${at}`) };
}

/** Slow time by region, and incidents by cause, over time. */
export function OverTime({ overview }: { overview: NetworkOverview }) {
  const [from, to] = [Date.parse(overview.from), Date.parse(overview.to)];
  const regions = useMemo(
    () =>
      tabulate(
        overview.overTime,
        ({ region }) => region,
        ({ ms }) => ms,
      ),
    [overview],
  );
  const causes = useMemo(
    () =>
      tabulate(
        overview.causesOverTime,
        ({ cause }) => cause,
        ({ incidents }) => incidents,
      ),
    [overview],
  );
  const slow: Series[] = regions.keys.map((key, index) => ({
    label: key,
    color: colors[index]!,
    values: regions.times.map((at) => {
      const found = regions.cell(key, at);
      return !found || found.ms === 0 ? null : (found.slowMs / found.ms) * 100;
    }),
  }));
  return (
    <div className="network-charts">
      <section className="panel" aria-labelledby="slow-title">
        <header>
          <h2 id="slow-title">Slow time by region</h2>
        </header>
        <div className="body stack tight">
          <Chart
            label={`The share of slow time by region: ${regions.keys.join(', ')}. The table below has the values.`}
            {...{ times: regions.times, series: slow, from, to }}
            height={200}
            unit={(value) => `${Math.round(value)} %`}
            atLeast={5}
          />
          <Table
            head={regions.keys}
            rows={regions.times.map((at) => ({
              at,
              cells: regions.keys.map((key) => {
                const found = regions.cell(key, at);
                return found ? percent(found.slowMs, found.ms) : '';
              }),
            }))}
          />
        </div>
      </section>
      <section className="panel" aria-labelledby="incidents-over-title">
        <header>
          <h2 id="incidents-over-title">Incidents by cause</h2>
        </header>
        <div className="body stack tight">
          {causes.times.length === 0 ? (
            <p className="muted">Nothing went wrong in this time.</p>
          ) : (
            <>
              <Chart
                label={`Incidents by cause: ${causes.keys.join(', ')}. The table below has the numbers.`}
                {...{ times: causes.times, series: stacked(causes), from, to }}
                height={200}
                unit={(value) => String(Math.round(value))}
                atLeast={4}
              />
              <Table
                head={causes.keys}
                rows={causes.times.map((at) => ({
                  at,
                  cells: causes.keys.map((key) => String(causes.cell(key, at)?.incidents ?? '')),
                }))}
              />
            </>
          )}
        </div>
      </section>
    </div>
  );
}

/** Bars on top of each other: the sums come first and are covered by the smaller ones. */
function stacked({
  times,
  keys,
  cell,
}: ReturnType<typeof tabulate<NetworkOverview['causesOverTime'][number]>>): Series[] {
  const sumTo = (index: number, at: number) =>
    keys.slice(0, index + 1).reduce((sum, key) => sum + (cell(key, at)?.incidents ?? 0), 0);
  return keys
    .map(
      (key, index): Series => ({
        label: key,
        color: colors[index]!,
        as: 'bars',
        values: times.map((at) => sumTo(index, at)),
        shown: times.map((at) => cell(key, at)?.incidents ?? 0),
      }),
    )
    .reverse();
}

function Table({ head, rows }: { head: string[]; rows: { at: number; cells: string[] }[] }) {
  return (
    <details className="chart-details">
      <summary>Show as a table</summary>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, also by keys. */}
      <section className="list" tabIndex={0} aria-label="The chart as a table">
        <table>
          <thead>
            <tr>
              <th scope="col">From</th>
              {head.map((key) => (
                <th scope="col" key={key}>
                  {key}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {[...rows].reverse().map(({ at, cells }) => (
              <tr key={at}>
                <th scope="row" className="nowrap">
                  {moment(new Date(at).toISOString())}
                </th>
                {cells.map((text, index) => (
                  <td key={head[index]}>{text}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </details>
  );
}
