import { type ActivityEvent, type Signal, signals } from '@cde/api/activity.ts';

/** From and to as shares of the time that a chart shows. */
export interface Stretch {
  from: number;
  to: number;
  title: string;
}

export interface ChartRow {
  key: Signal | 'running';
  stretches: Stretch[];
}

/**
 * What a chart shows of the events between two moments: when the workspace ran, then each signal that occurred. `runsNow`: an
 * unfinished run reaches the end.
 */
export function chartRows(
  events: readonly ActivityEvent[],
  {
    from,
    to,
    runsNow,
    titleOf,
  }: { from: number; to: number; runsNow: boolean; titleOf: (event: ActivityEvent) => string },
): ChartRow[] {
  const stretch = (start: number, end: number, title: string): Stretch | null => {
    if (end < from || start > to) return null;
    const share = (at: number) => Math.min(1, Math.max(0, (at - from) / (to - from)));
    return { from: share(start), to: share(end), title };
  };
  const rows: ChartRow[] = [{ key: 'running', stretches: runsOf(events, { from, to, runsNow, stretch }) }];
  for (const signal of signals) {
    const stretches = events
      .filter((event) => event.kind === 'signal' && event.signal === signal)
      .map((event) => stretch(Date.parse(event.at), Date.parse(event.until ?? event.at), titleOf(event)))
      .filter((one) => one !== null);
    if (stretches.length > 0) rows.push({ key: signal, stretches });
  }
  return rows;
}

function runsOf(
  events: readonly ActivityEvent[],
  {
    from,
    to,
    runsNow,
    stretch,
  }: {
    from: number;
    to: number;
    runsNow: boolean;
    stretch: (start: number, end: number, title: string) => Stretch | null;
  },
): Stretch[] {
  const changes = events
    .filter(({ kind }) => kind === 'started' || kind === 'stopped')
    .map(({ kind, at }) => ({ starts: kind === 'started', at: Date.parse(at) }))
    .sort((a, b) => a.at - b.at);
  const runs: (Stretch | null)[] = [];
  // The first event that is known ends what came before it.
  let since: number | null = changes[0] ? (changes[0].starts ? null : from) : runsNow ? from : null;
  for (const { starts, at } of changes) {
    if (starts) since ??= at;
    else if (since !== null) {
      runs.push(stretch(since, at, 'Running'));
      since = null;
    }
  }
  if (since !== null && runsNow) runs.push(stretch(since, to, 'Running'));
  return runs.filter((run) => run !== null);
}
