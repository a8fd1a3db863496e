import { usage } from '../failure/failure.ts';
import { duration, parseMoment } from '../output/times.ts';

export const milliseconds = (value: number | null | undefined): string =>
  value == null ? '' : `${value < 100 ? value.toFixed(1) : Math.round(value)} ms`;

/** `24.0 ms / 61.2 ms`. */
const percentiles = (leg: { p50: number; p95: number } | null): string =>
  leg === null ? '' : `${milliseconds(leg.p50)} / ${milliseconds(leg.p95)}`;

const plainPercentiles = (leg: { p50: number; p95: number } | null): string =>
  leg === null ? '' : `${leg.p50} ${leg.p95}`;

interface Legs {
  toAgent: { p50: number; p95: number } | null;
  toSatellite: { p50: number; p95: number } | null;
  satelliteToAgent: { p50: number; p95: number } | null;
}
const legColumn = (title: string, leg: keyof Legs) => ({
  title,
  cell: (row: Legs) => percentiles(row[leg]),
  plain: (row: Legs) => plainPercentiles(row[leg]),
});
/** Columns of a table whose rows have legs. */
export const legColumns = [
  legColumn('P50 / P95', 'toAgent'),
  legColumn('TO SATELLITE', 'toSatellite'),
  legColumn('SATELLITE TO AGENT', 'satelliteToAgent'),
];

/** `4.2 %`: the part of the time in use. */
export const share = (part: number, all: number): string =>
  all === 0 ? '' : `${((part / all) * 100).toFixed(part > 0 && part < all / 100 ? 2 : 1)} %`;

export const length = (ms: number): string => (ms === 0 ? '' : duration(ms));

export function momentOption(flag: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const at = parseMoment(text);
  if (at === null)
    throw usage(
      `${flag} takes a time, not ${JSON.stringify(text)}.`,
      'Write 2h, 7d, 2026-05-01 or 2026-05-01T12:00:00Z.',
    );
  return at;
}
