import { useEffect, useRef, useState } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import './charts.css';

/** Where the plot begins and ends within the chart, so that strips of HTML can stand above it. */
export const plotLeft = 66;
export const plotRight = 12;

export interface Series {
  label: string;
  /** A variable of base.css, such as `--accent`. */
  color: string;
  /** Same length as the times; null: nothing is known, and the line has a gap. */
  values: (number | null)[];
  as?: 'line' | 'thin-line' | 'bars';
  /** What the legend says instead of the values, for bars on top of each other. */
  shown?: number[];
}

export interface Shaded {
  from: number;
  to: number;
  color: string;
}

interface ChartProps {
  /** What a screen reader says instead of the picture. */
  label: string;
  /** Unix times in milliseconds, ascending. */
  times: number[];
  series: Series[];
  from: number;
  to: number;
  height: number;
  unit: (value: number) => string;
  shaded?: Shaded[];
  /** The vertical axis reaches at least this. */
  atLeast?: number;
}

const maxDots = 80;

/** The number changes when the colours do. */
function useColorScheme(): number {
  const [changes, setChanges] = useState(0);
  useEffect(() => {
    const query = matchMedia('(prefers-color-scheme: dark)');
    const onChange = () => setChanges((count) => count + 1);
    query.addEventListener('change', onChange);
    return () => query.removeEventListener('change', onChange);
  }, []);
  return changes;
}

/** Lines and bars over time, drawn by uPlot. */
export function Chart(props: ChartProps) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  const latest = useRef(props);
  latest.current = props;
  const scheme = useColorScheme();
  const { label, times, series, from, to, height } = props;
  const shape = series.map((one) => `${one.label} ${one.color} ${one.as}`).join();

  // A new plot for other series and colours, but not for each new value.
  // biome-ignore lint/correctness/useExhaustiveDependencies: `shape` stands for the series, and the rest is read from `latest`.
  useEffect(() => {
    const element = holder.current!;
    const made = new uPlot(optionsOf(latest, element.clientWidth), dataOf(latest.current), element);
    plot.current = made;
    const observer = new ResizeObserver(() => {
      const { clientWidth: width } = element;
      if (width > 0 && width !== made.width) made.setSize({ width, height });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current = null;
      made.destroy();
    };
  }, [shape, scheme, height]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the values are in `series`.
  useEffect(() => {
    const made = plot.current;
    if (!made) return;
    made.batch(() => {
      made.setData(dataOf(latest.current), false);
      made.setScale('x', { min: from / 1000, max: to / 1000 });
    });
  }, [times, series, from, to]);

  return <div ref={holder} className="chart" role="img" aria-label={label} />;
}

const dataOf = ({ times, series }: ChartProps): uPlot.AlignedData => [
  times.map((at) => at / 1000),
  ...series.map(({ values }) => values),
];

function optionsOf(latest: { current: ChartProps }, width: number): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const { series, height, from, to, unit } = latest.current;
  const axis: uPlot.Axis = {
    stroke: color('--muted'),
    grid: { stroke: color('--line'), width: 1 },
    ticks: { stroke: color('--line'), width: 1 },
    font: `12px ${style.getPropertyValue('--font')}`,
  };
  return {
    ...{ width, height, padding: [8, plotRight, 0, 0] },
    cursor: { drag: { x: false, y: false }, points: { size: 6 } },
    legend: { live: true },
    scales: {
      x: { time: true, min: from / 1000, max: to / 1000 },
      y: {
        range: (_plot, _min, max) => [0, Math.max(latest.current.atLeast ?? 1, (max ?? 0) * 1.1)],
      },
    },
    axes: [
      { ...axis, size: 34, space: 70, values: timeLabels },
      { ...axis, size: plotLeft, values: (_plot, ticks) => ticks.map(unit) },
    ],
    series: [
      { label: 'Time', value: (_plot, at) => (at == null ? '–' : fullTime.format(at * 1000)) },
      ...series.map((one): uPlot.Series => {
        const stroke = color(one.color);
        return {
          label: one.label,
          stroke,
          width: one.as === 'thin-line' ? 1 : 2,
          // A single value is no line.
          points: { show: one.as !== 'bars' && latest.current.times.length <= maxDots, size: 4 },
          spanGaps: false,
          value: (_plot, value, index, at) => {
            const shown = at == null ? value : (latest.current.series[index - 1]?.shown?.[at] ?? value);
            return shown == null ? '–' : unit(shown);
          },
          ...(one.as === 'bars' && {
            ...{ fill: stroke, width: 0 },
            paths: uPlot.paths.bars!({ size: [0.8, 24], align: 1 }),
          }),
        };
      }),
    ],
    hooks: { drawClear: [(plot) => shade(plot, latest.current.shaded ?? [], color)] },
  };
}

/** Marks times behind the lines, at least two pixels wide. */
function shade(plot: uPlot, shaded: Shaded[], color: (name: string) => string): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const { from, to, color: name } of shaded) {
    const left = plot.valToPos(from / 1000, 'x', true);
    const right = plot.valToPos(to / 1000, 'x', true);
    ctx.fillStyle = color(name);
    ctx.fillRect(left, bbox.top, Math.max(2 * devicePixelRatio, right - left), bbox.height);
  }
  ctx.restore();
}

const fullTime = new Intl.DateTimeFormat(undefined, {
  ...{ dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' },
});
const dayLabel = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const clockLabel = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });

/** A date at midnights, a time at the others. */
const timeLabels: uPlot.Axis.DynamicValues = (_plot, ticks) =>
  ticks.map((seconds) => {
    const at = new Date(seconds * 1000);
    return at.getHours() === 0 && at.getMinutes() === 0 ? dayLabel.format(at) : clockLabel.format(at);
  });
