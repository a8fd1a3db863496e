import { type Resolution, resolutionMs } from '@cde/api/session-values.ts';
import type { SessionStretch } from '@cde/api/sessions.ts';

/** What is shown of one moment. */
export interface Point {
  at: number;
  /** Null: nothing was recorded here, so that lines have a gap. */
  stretch: SessionStretch | null;
}

/**
 * Joins the stretches of sessions to one line, with gaps where nothing was recorded. Of sessions at the same time it takes the
 * slowest, whose person noticed most.
 */
export function joinStretches(
  lists: readonly (readonly SessionStretch[])[],
  resolution: Resolution,
): Point[] {
  const unit = resolutionMs[resolution];
  const worst = new Map<number, SessionStretch>();
  for (const stretch of lists.flat()) {
    const slot = Math.floor(Date.parse(stretch.at) / unit);
    const known = worst.get(slot);
    if (!known || (stretch.toAgent?.p95 ?? 0) > (known.toAgent?.p95 ?? 0)) worst.set(slot, stretch);
  }
  const points: Point[] = [];
  let before: number | undefined;
  for (const slot of [...worst.keys()].sort((one, other) => one - other)) {
    const stretch = worst.get(slot)!;
    // Windows begin up to a second late, so that one slot may be skipped.
    if (before !== undefined && slot - before > 2) points.push({ at: (before + 1) * unit, stretch: null });
    points.push({ at: Math.max(Date.parse(stretch.at), (points.at(-1)?.at ?? 0) + 1), stretch });
    before = slot;
  }
  return points;
}

export interface PathBand {
  from: number;
  to: number;
  kind: string | null;
  label: string;
}

/** Times with the same path. A gap ends one. */
export function pathBands(points: readonly Point[], resolution: Resolution): PathBand[] {
  const unit = resolutionMs[resolution];
  const bands: PathBand[] = [];
  let isOpen = false;
  for (const { at, stretch } of points) {
    if (stretch === null) {
      isOpen = false;
      continue;
    }
    const { path } = stretch;
    const label = path === null ? 'no path' : path.kind === 'relay' ? `relay ${path.via}` : path.kind;
    const last = bands.at(-1);
    if (isOpen && last?.label === label) last.to = at + unit;
    else {
      if (isOpen && last) last.to = Math.min(last.to, at);
      bands.push({ from: at, to: at + unit, kind: path?.kind ?? null, label });
    }
    isOpen = true;
  }
  return bands;
}

/** The part of probes without an answer, in percent. */
export const lossPercent = ({ toAgent }: SessionStretch): number | null =>
  toAgent === null ? null : (100 * toAgent.unanswered) / (toAgent.count + toAgent.unanswered);

/** A row of the table below the chart: the points of one interval. */
export interface TableRow {
  at: number;
  path: string;
  p50: number | null;
  p95: number | null;
  toSatellite: number | null;
  satelliteToAgent: number | null;
  unanswered: number;
}

const maxRows = 60;

/** The same as text: at most 60 rows, the newest first. A row has the highest values of its time. */
export function tableRows(points: readonly Point[], { from, to }: { from: number; to: number }): TableRow[] {
  const known = points.filter((point) => point.stretch !== null);
  const interval = known.length <= maxRows ? 1 : Math.ceil((to - from) / maxRows);
  const groups = new Map<number, { at: number; stretches: SessionStretch[] }>();
  for (const { at, stretch } of known) {
    const key = Math.floor((at - from) / interval);
    const group = groups.get(key) ?? { at, stretches: [] };
    group.stretches.push(stretch!);
    groups.set(key, group);
  }
  const highest = (values: (number | undefined)[]) => {
    const measured = values.filter((value) => value !== undefined);
    return measured.length === 0 ? null : Math.max(...measured);
  };
  return [...groups.values()].reverse().map(({ at, stretches }) => ({
    at,
    path: [
      ...new Set(stretches.map(({ path }) => (path === null ? 'none' : `${path.kind} ${path.via}`))),
    ].join(', '),
    p50: highest(stretches.map(({ toAgent }) => toAgent?.p50)),
    p95: highest(stretches.map(({ toAgent }) => toAgent?.p95)),
    toSatellite: highest(stretches.map(({ toSatellite }) => toSatellite?.p50)),
    satelliteToAgent: highest(stretches.map(({ satelliteToAgent }) => satelliteToAgent?.p50)),
    unanswered: stretches.reduce((sum, { toAgent }) => sum + (toAgent?.unanswered ?? 0), 0),
  }));
}
