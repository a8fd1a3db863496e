import type { NetworkOverview } from '@cde/api/sessions.ts';
import { percent } from './percent.ts';

const hours = Array.from({ length: 24 }, (_, hour) => hour);
/** A share of slow time that is as red as it gets. */
const worstShare = 0.2;

/** The share of slow time by region and hour of the day, as a table whose cells are coloured. */
export function HeatMap({ overview }: { overview: NetworkOverview }) {
  const regions = [...new Set(overview.byHour.map(({ region }) => region))].sort();
  const found = new Map(overview.byHour.map((cell) => [`${cell.region} ${cell.hour}`, cell]));
  if (regions.length === 0) return null;
  return (
    <section className="panel" aria-labelledby="heat-title">
      <header>
        <h2 id="heat-title">Noticeable latency by region and hour</h2>
        <span className="end muted small-text">share of the time in use, your time zone</span>
      </header>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, also by keys. */}
      <section className="body heat-scroll" tabIndex={0} aria-labelledby="heat-title">
        <table className="heat">
          <thead>
            <tr>
              <th scope="col">Region</th>
              {hours.map((hour) => (
                <th scope="col" key={hour}>
                  {String(hour).padStart(2, '0')}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {regions.map((region) => (
              <tr key={region}>
                <th scope="row">{region}</th>
                {hours.map((hour) => (
                  <HeatCell key={hour} cell={found.get(`${region} ${hour}`)} />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </section>
  );
}

function HeatCell({ cell }: { cell: NetworkOverview['byHour'][number] | undefined }) {
  if (!cell || cell.ms === 0)
    return (
      <td className="unused">
        <span className="hidden">not used</span>
      </td>
    );
  const share = cell.slowMs / cell.ms;
  const strength = Math.round(Math.min(1, share / worstShare) * 85);
  return (
    <td
      title={`${percent(cell.slowMs, cell.ms)} of ${Math.round(cell.ms / 60_000)} min`}
      style={{
        background: `color-mix(in srgb, var(--bad) ${share > 0 ? Math.max(8, strength) : 0}%, var(--ok-soft))`,
        ...(strength > 50 && { color: 'var(--surface)' }),
      }}
    >
      {share === 0 ? <span className="hidden">0 %</span> : Math.max(1, Math.round(share * 100))}
    </td>
  );
}
